"""The machine protocol: `python -m MedShieldLib.worker check ...`, JSON lines out, exit codes, no colours.

For programs that start a check and watch it, such as the Slicer module; people use `medshield`.

Every line of standard output is one JSON object, told apart by "event":
    {"event": "progress", "fraction": 0.4, "step": "..."}
    {"event": "log", "message": "..."}
    {"event": "result", "folder": "...", "verdict": "..."}      after check; the values of `result.Verdict`
    {"event": "result", "file": "..."}                          after calibrate
    {"event": "error", "message": "one sentence"}
Anything that libraries print goes to standard error. Exit codes: `control.ExitCode`. The worker stops, with
nothing half-written, on SIGINT, on SIGTERM, or when the pipe that is its standard input closes: because the
caller cancels, or because it was killed. It then removes the folder named by --scratch: after a kill nobody
else would, and a patient's scan is in there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from MedShieldLib import heap
from MedShieldLib.control import Control, ExitCode
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.extras import how_to_install
from MedShieldLib.lifeline import Lifeline

Job = TypeVar("Job")


class Reporter:
    """Writes events, one JSON line each; steps that hardly advance are left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock, self._last = stream, threading.Lock(), (-1.0, "")

    def send(self, event: str, **fields: object) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event, **fields}) + "\n")
            self._stream.flush()

    def progress(self, fraction: float, step: str) -> None:
        fraction = round(fraction, 3)
        if step != self._last[1] or fraction - self._last[0] >= 0.005:
            self._last = (fraction, step)
            self.send("progress", fraction=fraction, step=step)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one job and leave the process with its exit code."""
    heap.keep_for_reuse()
    reporter = Reporter(_own_stdout())
    control, lifeline = Control(reporter.progress), Lifeline()
    scratch: Path | None = None
    warnings.showwarning = lambda message, *_, **__: reporter.send("log", message=str(message))
    code = ExitCode.FAULT
    try:
        arguments = _parser().parse_args(argv)
        scratch = arguments.scratch
        lifeline.watch(control.cancel, is_held=scratch is not None)
        code = control.run(lambda: arguments.run(arguments, control, reporter))
    except SystemExit:  # --help
        code = ExitCode.CLEAN
    except InputError as error:
        code = ExitCode.INPUT_ERROR
        reporter.send("error", message=str(error))
    except ModuleNotFoundError as error:
        code = ExitCode.INPUT_ERROR
        reporter.send("error", message=how_to_install(error))
    except Cancelled:
        code = ExitCode.CANCELLED
        reporter.send("error", message="Cancelled; nothing is left half-written.")
    except BrokenPipeError:  # nobody listens any more
        code = ExitCode.CANCELLED
    except Exception as error:
        traceback.print_exc()
        reporter.send("error", message=f"{type(error).__name__}: {str(error) or 'no message'}")
    finally:
        sys.stderr.flush()
        if scratch and lifeline.is_cut:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(code)  # a cancelled job may still be inside a native call


def _check(arguments: argparse.Namespace, control: Control, reporter: Reporter) -> ExitCode:
    from MedShieldLib.jobs import CheckJob

    job = _job(CheckJob, arguments)
    result = job.run(control)
    for note in result.notes:
        reporter.send("log", message=note)
    reporter.send("result", folder=str(job.out.absolute()), verdict=result.verdict.value)
    return ExitCode(result.verdict.exit_code)


def _calibrate(arguments: argparse.Namespace, control: Control, reporter: Reporter) -> ExitCode:
    from MedShieldLib.jobs import CalibrateJob

    job = _job(CalibrateJob, arguments)
    job.run(control)
    reporter.send("result", file=str(job.out.absolute()))
    return ExitCode.CLEAN


def _job(kind: type[Job], arguments: argparse.Namespace) -> Job:
    """A job from the arguments that bear its fields' names and were given."""
    names = (field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
    return kind(**{name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}; see python -m MedShieldLib.worker --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m MedShieldLib.worker", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True, parser_class=_Parser, metavar="check | calibrate")
    check = commands.add_parser("check", help="check one volume", allow_abbrev=False)
    check.add_argument("volume", type=Path, help="file or DICOM folder")
    check.add_argument("--calibration", type=Path)
    check.add_argument("--alpha", type=float, default=0.05)
    check.add_argument("--series")
    check.add_argument("--component", type=int)
    check.add_argument("--versions", type=int)
    check.add_argument("--scratch", type=Path, help="the caller's folder, removed when it closes the pipe")
    check.set_defaults(run=_check)
    calibrate = commands.add_parser("calibrate", help="calibrate on clean volumes", allow_abbrev=False)
    calibrate.add_argument("folder", type=Path)
    calibrate.add_argument("--learned", action="store_true", help="let the learned denoiser vote as well")
    calibrate.set_defaults(run=_calibrate, scratch=None)
    for command in (check, calibrate):
        command.add_argument("--target", required=True, help="built-in name or JSON file")
        command.add_argument("--second-opinion", help="another target to ask as well")
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--seed", type=_seed)
        command.add_argument("--force", action="store_true", help="replace what is there")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no seed; give a whole number that is not negative")
    return int(text)


def _own_stdout() -> TextIO:
    """Standard output for events alone: what others print there goes to standard error from now on."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return stream


if __name__ == "__main__":
    main()
