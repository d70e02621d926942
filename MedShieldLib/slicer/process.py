"""The worker process: start it, follow its events, end its whole process tree.

No Qt and no threads: the owner calls `poll` from a timer. What the events mean is in `check.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import MedShieldLib

# A worker that has not stopped this long after a cancel is killed.
GRACE_S = 5.0
_TAIL_LINES = 20


class State(Enum):
    """Where a worker stands; the last three are final."""

    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self not in (State.RUNNING, State.CANCELLING)


class WorkerProcess:
    """One run of a command that prints JSON lines, with all the processes that it starts.

    Its output goes to files in `folder`, not through pipes, so that a busy Slicer never stalls the worker and
    no thread is needed to read them. Its standard input is a pipe that is never written to: the worker stops
    by itself when that closes, which it does even when Slicer is killed.

    Args:
        arguments: what to run, the program first.
        folder: an existing folder for the output files.
        on_event: called from `poll` with each JSON object that the worker printed.
        environment: variables to set for the worker.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        on_event: Callable[[dict[str, Any]], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state = State.RUNNING
        self.exit_code: int | None = None
        self._on_event = on_event
        self._stdout, self._stderr = folder / "events.jsonl", folder / "errors.txt"
        self._read_bytes, self._rest, self._deadline = 0, b"", 0.0
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **_own_environment(), **(environment or {})},
                **_own_group(),
            )

    @property
    def pid(self) -> int:
        """Process id of the worker, which leads its process group."""
        return self._process.pid

    def poll(self) -> State:
        """Deliver what the worker said since the last call and notice its end; never blocks."""
        if self.state.is_over:
            return self.state
        code = self._process.poll()
        self._deliver()
        if code is not None:
            self._end(code)
        elif self.state is State.CANCELLING and time.monotonic() > self._deadline:
            self._signal_tree(kill=True)
        return self.state

    def cancel(self) -> None:
        """Ask the worker to stop, and kill its tree when it does not within `GRACE_S`."""
        if self.state is State.RUNNING:
            self.state, self._deadline = State.CANCELLING, time.monotonic() + GRACE_S
            self._close_stdin()
            self._signal_tree(kill=False)

    def kill(self) -> None:
        """End the whole process tree now and wait for it: Slicer closes or the module is reloaded."""
        if not self.state.is_over:
            self._signal_tree(kill=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
            self.state = State.CANCELLING
            self._end(self._process.returncode if self._process.returncode is not None else -1)

    def last_words(self) -> str:
        """The end of what the worker and its libraries wrote to standard error."""
        with contextlib.suppress(OSError):
            return "\n".join(self._stderr.read_text("utf-8", "replace").strip().splitlines()[-_TAIL_LINES:])
        return ""

    def _end(self, code: int) -> None:
        self.exit_code = code
        self._close_stdin()
        self._signal_tree(kill=True)  # children that outlived the worker
        stopped = self.state is State.CANCELLING
        # A negative code, or 128 + signal from a launcher in between, means that something else killed it.
        crashed = code < 0 or code > 128
        self.state = State.CANCELLED if stopped else State.CRASHED if crashed else State.FINISHED

    def _deliver(self) -> None:
        try:
            with self._stdout.open("rb") as stream:
                stream.seek(self._read_bytes)
                new = stream.read()
        except OSError:  # somebody cleared the temporary folder; the exit code still comes
            return
        self._read_bytes += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self._on_event(event)

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def _signal_tree(self, kill: bool) -> None:
        if os.name == "nt":
            if kill:
                command = ["taskkill", "/F", "/T", "/PID", str(self.pid)]
                subprocess.run(command, capture_output=True, check=False, **_own_group())
            return  # the closed standard input has asked already
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL if kill else signal.SIGTERM)


def worker_command(*arguments: object) -> list[str]:
    """The command line of `python -m MedShieldLib.worker` with these arguments."""
    return [python_program(), "-m", "MedShieldLib.worker", *map(str, arguments)]


def python_program() -> str:
    """Slicer's own Python, whose launcher sets up the libraries; outside of Slicer the running one."""
    return shutil.which("PythonSlicer") or sys.executable


def _own_environment() -> dict[str, str]:
    """Make this very library importable, wherever Slicer installed it, and the output UTF-8."""
    root = str(Path(MedShieldLib.__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}


def _own_group() -> dict[str, Any]:
    """A process group of its own, so that the tree can be ended as one; no console window on Windows."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
