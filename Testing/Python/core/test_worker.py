"""The machine protocol, spoken by the real worker process about a real volume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from MedShieldLib.volume import Volume

WORKER = (sys.executable, "-m", "MedShieldLib.worker")
# Python of a worker whose jobs do what a test wants; the arguments follow.
PATCHED = (sys.executable, "-c")


@pytest.fixture(scope="module")
def head(mni_2mm: Volume, tmp_path_factory) -> Path:
    """The whole head: long enough to be interrupted."""
    path = tmp_path_factory.mktemp("head") / "head.nii.gz"
    mni_2mm.write(path)
    return path


@pytest.fixture(scope="module")
def piece(mni_2mm: Volume, tmp_path_factory) -> Path:
    """The middle of the head: quick, and with tissue in it."""
    folder = tmp_path_factory.mktemp("pieces")
    mni_2mm.with_voxels(mni_2mm.voxels[28:60, 42:74, 34:66].copy()).write(folder / "piece.nii.gz")
    return folder / "piece.nii.gz"


def speak(*arguments: object, command=WORKER, **options) -> tuple[int, list[dict], str]:
    """Run a worker to its end: exit code, events, standard error."""
    options = {"stdin": subprocess.DEVNULL, **options}
    run = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def start(*arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen([*WORKER, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **options)


def wait_for_segmenting(worker: subprocess.Popen) -> None:
    for line in worker.stdout:
        if "Segmenting" in line:
            return
    pytest.fail(f"the worker ended with {worker.wait()} before it segmented")


def test_check_tells_progress_and_result_and_exits_with_the_verdict(piece, tmp_path):
    out = tmp_path / "ergebnisse für Łukasz"
    code, events, _ = speak("check", piece, "--target", "brain-tissue", "--out", out, "--seed", 1)
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert len(fractions) > 5
    assert events[-1] == {"event": "result", "folder": str(out), "verdict": events[-1]["verdict"]}
    written = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert written["verdict"] == events[-1]["verdict"]
    assert code == {"clean": 0, "out_of_distribution": 10, "suspected_attack": 20}[written["verdict"]]
    notes = [event["message"] for event in events if event["event"] == "log"]
    assert set(written["notes"]) <= set(notes)


def test_calibration_made_by_the_worker_serves_a_check(piece, tmp_path):
    made = tmp_path / "made.json"
    code, events, _ = speak("calibrate", piece.parent, "--target", "brain-tissue", "--out", made)
    assert (code, events[-1]) == (0, {"event": "result", "file": str(made)})
    arguments = ("check", piece, "--target", "brain-tissue", "--calibration", made, "--out", tmp_path / "out")
    code, events, _ = speak(*arguments, "--alpha", 0.12)
    assert (code, events[-1]["verdict"]) == (0, "clean")  # the volume that it was calibrated on
    assert "calibration holds 1 subject" in next(
        event["message"] for event in events if event["event"] == "log"
    )


def test_second_opinion_needs_a_calibration_that_knows_it(piece, tmp_path):
    both = ("--target", "brain-tissue", "--second-opinion", "brain-tissue")
    made = tmp_path / "made.json"
    assert "calibrate --second-opinion" in complaint(
        *speak("check", piece, *both, "--out", tmp_path / "o")[:2]
    )
    assert speak("calibrate", piece.parent, *both, "--out", made)[0] == 0
    code, events, _ = speak("check", piece, *both, "--calibration", made, "--out", tmp_path / "out")
    assert (code, events[-1]["verdict"]) == (0, "clean")
    written = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert written["second_opinion"]["name"] == "brain-tissue" and "second opinion" in written["evidence"]


def complaint(code: int, events: list[dict]) -> str:
    """The one sentence of an input error."""
    assert code == 2
    (message,) = [event["message"] for event in events if event["event"] == "error"]
    assert events[-1]["event"] == "error" and "\n" not in message and message.endswith(".")
    return message


def test_missing_volume_is_an_input_error(tmp_path):
    gone = tmp_path / "nothing here.nii.gz"
    said = complaint(*speak("check", gone, "--target", "brain-tissue", "--out", tmp_path / "out")[:2])
    assert str(gone) in said
    assert not (tmp_path / "out").exists()


def test_unknown_target_is_an_input_error(piece, tmp_path):
    assert "'liver'" in complaint(*speak("check", piece, "--target", "liver", "--out", tmp_path / "o")[:2])


def test_wrong_arguments_are_an_input_error(piece):
    assert "--out" in complaint(*speak("check", piece, "--target", "brain-tissue")[:2])


@pytest.mark.parametrize("command", ["check", "calibrate"])
def test_negative_seed_is_an_input_error(command, piece, tmp_path):
    given = piece if command == "check" else piece.parent
    code, events, _ = speak(command, given, "--target", "brain-tissue", "--out", tmp_path / "o", "--seed=-1")
    assert code == 2 and "'-1' is no seed" in events[-1]["message"] and not (tmp_path / "o").exists()


def test_present_results_are_kept_before_anything_is_computed(piece, tmp_path):
    (tmp_path / "result.json").write_text("precious")
    code, events, _ = speak("check", piece, "--target", "brain-tissue", "--out", tmp_path)
    assert "--force" in complaint(code, events)
    assert [event["event"] for event in events] == ["error"]
    assert (tmp_path / "result.json").read_text() == "precious"


def test_fault_is_one_event_and_a_traceback_on_stderr():
    code = "from MedShieldLib import jobs, worker; jobs.CheckJob.run = lambda *_: 1 / 0; worker.main()"
    arguments = ("check", "x", "--target", "y", "--out", "z")
    status, events, errors = speak(*arguments, command=(*PATCHED, code))
    assert (status, [event["event"] for event in events]) == (1, ["error"])
    assert "ZeroDivisionError" in events[0]["message"] and "Traceback" in errors


def test_what_libraries_print_stays_out_of_the_events():
    noisy = (
        "print('noise'); import os; os.system('echo more noise'); import warnings; warnings.warn('careful')"
    )
    code = (
        "from MedShieldLib import jobs, worker\n"
        f"def run(job, control):\n    {noisy}\n    raise worker.InputError('Said.')\n"
        "jobs.CheckJob.run = run\nworker.main()"
    )
    _, events, errors = speak("check", "x", "--target", "y", "--out", "z", command=(*PATCHED, code))
    assert events == [{"event": "log", "message": "careful"}, {"event": "error", "message": "Said."}]
    assert "more noise" in errors


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "closed standard input"])
def test_cancel_leaves_nothing_behind(how, head, tmp_path):
    arguments = ("check", head, "--target", "brain-tissue", "--out", tmp_path / "out")
    with start(*arguments, stdin=subprocess.PIPE) as worker:
        wait_for_segmenting(worker)
        began = time.monotonic()
        if how.startswith("SIG"):
            worker.send_signal(getattr(signal, how))
        else:
            worker.stdin.close()
        assert worker.wait(30) == 3
        assert time.monotonic() - began < 5
        assert json.loads(worker.stdout.read().splitlines()[-1])["event"] == "error"
    assert list(tmp_path.iterdir()) == []


# A launcher that lives on when its caller is killed, as Slicer's may: the worker keeps its parent process.
LAUNCHER = (sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))")
# Does what Slicer does, and is killed.
CALLER = """
import sys, time
from pathlib import Path
from MedShieldLib.slicer.process import WorkerProcess
worker = WorkerProcess(sys.argv[2:], Path(sys.argv[1]), lambda event: print(event, flush=True))
print(worker.pid, flush=True)
while not worker.poll().is_over:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("launcher", [(), LAUNCHER], ids=("direct", "through a launcher"))
def test_worker_of_a_killed_caller_ends_and_removes_the_folder(head, tmp_path, launcher):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    volume = shutil.copy(head, scratch)
    arguments = [*WORKER, "check", volume, "--target", "brain-tissue", "--out", str(scratch / "out")]
    command = [sys.executable, "-c", CALLER, str(scratch), *launcher, *arguments, "--scratch", str(scratch)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as caller:
        started = psutil.Process(int(caller.stdout.readline()))
        wait_for_segmenting(caller)
        processes = [started, *started.children(recursive=True)]
        assert len(processes) == 1 + bool(launcher)
        os.kill(caller.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE], "it outlived its caller"
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_caller_who_lives_is_left_to_it(head, tmp_path):
    arguments = ("check", head, "--target", "brain-tissue", "--out", tmp_path / "out", "--scratch", tmp_path)
    with start(*arguments, stdin=subprocess.PIPE) as worker:
        wait_for_segmenting(worker)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 3
        assert tmp_path.is_dir()


def test_caller_who_was_killed_at_once_is_noticed(piece, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = {"stdin": None, "input": ""}
    arguments = ("check", piece, "--target", "brain-tissue", "--out", scratch / "out", "--scratch", scratch)
    assert speak(*arguments, **options)[0] == 3
    assert not scratch.exists()


def test_standard_input_is_the_lifelines_alone():
    """Else libraries that look at it when they are loaded hang on Windows."""
    job = "raise worker.InputError(f'{os.fstat(0).st_mode == os.stat(os.devnull).st_mode}.')"
    code = f"import os\nfrom MedShieldLib import jobs, worker\ndef run(*_):\n    {job}\n"
    code += "jobs.CheckJob.run = run\nworker.main()"
    with subprocess.Popen(
        [*PATCHED, code, "check", "x", "--target", "y", "--out", "z"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert json.loads(worker.stdout.readline()) == {"event": "error", "message": "True."}


def test_standard_input_that_is_closed_from_the_start_is_no_cancel(piece, tmp_path):
    options = {"stdin": None, "input": ""}
    code, events, _ = speak(
        "check", piece, "--target", "brain-tissue", "--out", tmp_path / "out", "--versions", "2", **options
    )
    assert events[-1]["event"] == "result" and code in (0, 10, 20)
