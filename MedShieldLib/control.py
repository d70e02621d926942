"""Long jobs that report progress and stop when asked, at once, with nothing half-written.

The command line and the worker both run their jobs here; what the jobs do is in `jobs.py`.
"""

from __future__ import annotations

import concurrent.futures
import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import TypeVar

from MedShieldLib.errors import Cancelled

Answer = TypeVar("Answer")

# A job that has not heard within this time is deaf (inside one long native call) and is left behind.
GRACE_S = 1.0


class ExitCode(IntEnum):
    """How `medshield` and the worker end."""

    CLEAN = 0
    FAULT = 1
    INPUT_ERROR = 2
    CANCELLED = 3
    OUT_OF_DISTRIBUTION = 10
    SUSPECTED_ATTACK = 20


class Control:
    """What a job hears (stop), what it says (progress), and when it may write.

    Args:
        progress: called as progress(fraction in [0, 1], step).
    """

    def __init__(self, progress: Callable[[float, str], None] = lambda fraction, step: None) -> None:
        self.progress = progress
        self._stop = threading.Event()
        self._pen = threading.Lock()

    def cancel(self) -> None:
        """Ask the job to stop; harmless when repeated."""
        self._stop.set()

    def cancelled(self) -> bool:
        return self._stop.is_set()

    def part(self, begin: float, end: float, name: str = "") -> Callable[[float, str], None]:
        """A progress callback whose 0 to 1 is `begin` to `end` of the job; `name` precedes its steps."""
        prefix = f"{name}: " if name else ""
        return lambda fraction, step: self.progress(begin + (end - begin) * fraction, prefix + step)

    def stage(self, begin: float, end: float, name: str = "") -> Control:
        """The same control for one job of several, whose progress is a `part` of this one's."""
        stage = copy.copy(self)
        stage.progress = self.part(begin, end, name)
        return stage

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Files may be written inside; a stop that comes now waits for the end of it.

        Raises:
            Cancelled: if the job was asked to stop before.
        """
        with self._pen:
            if self.cancelled():
                raise Cancelled
            yield

    def run(self, job: Callable[[], Answer]) -> Answer:
        """The answer of `job()`; Ctrl-C and SIGTERM stop it. Only from the main thread.

        The job runs beside this thread, so that a stop is heard even in a long native call.

        Raises:
            Cancelled: when stopped. The job may still be running then, but it cannot write any more: end the
                process with `os._exit`.
        """
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        threading.Thread(target=_settle, args=(future, job), daemon=True).start()
        with self._signals():
            while not future.done() and not self.cancelled():
                concurrent.futures.wait([future], 0.1)  # short: Windows hears Ctrl-C only between waits
            with self._pen:  # results that are being written are finished, and then they are the answer
                pass
            concurrent.futures.wait([future], GRACE_S)
        if not future.done():
            raise Cancelled
        return future.result()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda *_: self.cancel()) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)


def _settle(future: concurrent.futures.Future, job: Callable) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # whatever it is, it belongs to the thread that waits
        future.set_exception(error)
