"""The command line as a person uses it: real processes and volumes, and a terminal where it matters."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib import __version__, terminal
from MedShieldLib.agreement import dice
from MedShieldLib.cli import parse_eps
from MedShieldLib.demo import mni152
from MedShieldLib.errors import InputError
from MedShieldLib.jobs import make_folder
from MedShieldLib.result import Verdict
from MedShieldLib.shield import Shield
from MedShieldLib.volume import Volume

MEDSHIELD = (sys.executable, "-m", "MedShieldLib.cli")
BRAIN = ("--target", "brain-tissue")
STRUCTURE = {"value": 1, "name": "Liver", "color": [0.8, 0.4, 0.3]}


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scans with ünïcode") / "MNI 152.nii.gz"
    mni152().write(path)
    return path


@pytest.fixture(scope="module")
def attacked(head) -> tuple[Path, subprocess.CompletedProcess]:
    """The head, attacked with fewer steps than the default to save time."""
    path = head.with_name("attacked.nii.gz")
    return path, medshield("attack", head, *BRAIN, "--eps", "8/255", "--steps", 10, "--seed", 3, "-o", path)


@pytest.fixture(scope="module")
def checked(head, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    out = tmp_path_factory.mktemp("clean") / "results"
    return out, medshield("check", head, *BRAIN, "--seed", 1, "-o", out)


def medshield(*arguments: object, command=MEDSHIELD, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "100", **variables}
    return subprocess.run(
        [*command, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )


def refusal(*arguments: object) -> str:
    """The one sentence with which a command refuses its input."""
    run = medshield(*arguments)
    assert run.returncode == 2, run.stderr
    assert run.stdout == "" and "Traceback" not in run.stderr
    sentence = run.stderr.splitlines()[-1]
    assert sentence.endswith(".")
    return sentence


# --- real checks


def test_clean_head_is_clean_and_its_segmentation_untouched(checked):
    out, run = checked
    assert run.returncode == 0, run.stderr
    assert "CLEAN" in run.stdout and "Grey matter" in run.stdout and str(out / "report.html") in run.stdout
    assert "Not for clinical use" in run.stdout
    result = json.loads((out / "result.json").read_text())
    assert result["verdict"] == "clean" and result["p_attack"] > result["alpha"]
    original, defended = (
        Volume.read(out / f"{n}_segmentation.nii.gz").voxels for n in ("original", "defended")
    )
    assert np.array_equal(original, defended) and original.max() == 3


def test_progress_is_plain_lines_without_a_terminal(checked):
    _, run = checked
    assert "Reading the volume" in run.stderr and "Segmenting" in run.stderr
    assert "\x1b" not in run.stderr + run.stdout


def test_attack_says_what_it_did_within_its_bound(attacked, head):
    path, run = attacked
    assert run.returncode == 0, run.stderr
    assert "bound 8.00/255" in run.stdout and str(path) in run.stdout
    clean, changed = Volume.read(head), Volume.read(path)
    assert changed.same_geometry(clean) and changed.voxels.dtype == clean.voxels.dtype
    width = np.percentile(clean.voxels, 99.9)  # the target's window is no wider
    assert 0 < np.abs(changed.voxels - clean.voxels).max() <= 8 / 255 * width * 1.01


def test_attacked_head_is_suspected_and_repaired(attacked, checked, tmp_path):
    run = medshield("check", attacked[0], *BRAIN, "--seed", 1, "-o", tmp_path / "out")
    assert run.returncode == 20, run.stdout + run.stderr
    assert "SUSPECTED ATTACK" in run.stdout
    truth = Volume.read(checked[0] / "original_segmentation.nii.gz").voxels
    original, defended = (
        Volume.read(tmp_path / "out" / f"{name}_segmentation.nii.gz").voxels
        for name in ("original", "defended")
    )
    overlap = {n: (dice(original == n, truth == n), dice(defended == n, truth == n)) for n in (1, 2, 3)}
    before, after = np.mean(list(overlap.values()), axis=0)
    # A template, the average of many heads, is hard to mislead.
    assert before < 0.87 and after > 0.9 and after > before + 0.05, overlap


def test_calibration_that_can_never_alarm_is_the_headline(
    small_target, small_calibration, small_heads, capsys
):
    result = Shield(small_target, small_calibration, alpha=0.05, seed=3).check_and_segment(small_heads[4][1])
    assert result.verdict is Verdict.CLEAN  # as it must be: 16 scores
    terminal.show_check(result, Path("results"))
    headline = capsys.readouterr().out.splitlines()[0]
    assert "too small" in headline and "CLEAN" not in headline


# --- refusals


def test_present_results_are_kept_before_anything_is_read(head, tmp_path):
    (tmp_path / "result.json").write_text("precious")
    run = medshield("check", head, *BRAIN, "-o", tmp_path)
    assert run.returncode == 2 and "--force" in run.stderr and "Reading" not in run.stderr
    assert (tmp_path / "result.json").read_text() == "precious"


def test_folder_that_cannot_be_made_is_refused_before_anything_is_read(head, tmp_path):
    (tmp_path / "file").touch()
    run = medshield("check", head, *BRAIN, "-o", tmp_path / "file" / "out")
    assert (
        run.returncode == 2 and str(tmp_path / "file" / "out") in run.stderr and "Reading" not in run.stderr
    )


@pytest.mark.parametrize("place", ["file", "file/out", "dangling"])
def test_demo_refuses_a_place_that_is_no_folder(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "away")
    assert str(tmp_path / place) in refusal("demo", "-o", tmp_path / place)


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="cannot be made"):
            make_folder(place)


@pytest.mark.parametrize("command", ["check", "attack", "calibrate"])
def test_negative_seed_is_refused(command, head, tmp_path):
    run = medshield(command, head, *BRAIN, "--seed", -1, "-o", tmp_path / "out.nii")
    assert run.returncode == 2 and "seed" in run.stderr and not any(tmp_path.iterdir())


def test_name_that_the_terminal_cannot_show_undoes_nothing(tmp_path):
    path = tmp_path / "頭.nii.gz"
    run = medshield("info", path, PYTHONIOENCODING="cp1252")
    assert run.returncode == 2 and "?.nii.gz does not exist" in run.stderr
    code = "from MedShieldLib import cli; cli.app = lambda _: cli.terminal.out.print('頭'); cli.main()"
    run = medshield(command=(sys.executable, "-c", code), PYTHONIOENCODING="cp1252")
    assert run.stdout == "?\n" and "failed" not in run.stderr


def test_unreadable_files_are_left_to_our_own_sentences(head, tmp_path):
    """Typer's own check answers with several lines of usage. Played, as root may read anything."""
    code = "import os; os.access = lambda *_, **__: False; from MedShieldLib.cli import main; main()"
    arguments = ("check", head, "--target", "liver", "--calibration", head, "-o", tmp_path)
    run = medshield(*arguments, command=(sys.executable, "-c", code))
    assert run.returncode == 2 and "'liver'" in run.stderr.splitlines()[-1] and "Usage" not in run.stderr


def test_attack_does_not_replace_a_file_unasked(head):
    before = head.read_bytes()
    assert "--force" in refusal("attack", head, *BRAIN, "-o", head)
    assert head.read_bytes() == before


@pytest.mark.parametrize("name", ["attacked.png", "attacked"])
def test_attack_wants_a_file_format_that_it_can_write(head, tmp_path, name):
    assert ".nii.gz" in refusal("attack", head, *BRAIN, "-o", tmp_path / name)


def test_missing_volume_is_named(tmp_path):
    assert "gone.nii" in refusal("check", tmp_path / "gone.nii", *BRAIN, "-o", tmp_path / "out")


def test_alpha_outside_of_its_range_is_refused(head, tmp_path):
    assert "1.5" in refusal("check", head, *BRAIN, "--alpha", 1.5, "-o", tmp_path / "out")


def test_second_opinion_that_the_calibration_does_not_hold_is_refused(head, tmp_path):
    sentence = refusal("check", head, *BRAIN, "--second-opinion", "brain-tissue", "-o", tmp_path / "out")
    assert "medshield calibrate --second-opinion" in sentence


def test_second_opinion_of_an_unknown_target_is_refused(head, tmp_path):
    arguments = ("calibrate", head.parent, *BRAIN, "--second-opinion", "liver", "-o", tmp_path / "c.json")
    assert "'liver'" in refusal(*arguments)


def test_attack_that_could_change_nothing_is_refused(head, tmp_path):
    volume = Volume.read(head)
    coarse = 20 * volume.voxels / volume.voxels.max()
    volume.with_voxels(np.rint(coarse).astype(np.int16)).write(tmp_path / "coarse.nii.gz")
    arguments = ("attack", tmp_path / "coarse.nii.gz", *BRAIN, "--eps", "8/255", "-o", tmp_path / "a.nii.gz")
    assert "one grey level" in refusal(*arguments) and not (tmp_path / "a.nii.gz").exists()


def test_empty_folder_is_no_calibration_data(tmp_path):
    assert str(tmp_path) in refusal("calibrate", tmp_path, *BRAIN, "-o", tmp_path / "c.json")


@pytest.mark.parametrize("text", ["8/256", "0.03", "1/255", "1"])
def test_bounds_as_fractions_and_decimals(text):
    numerator, _, denominator = text.partition("/")
    assert parse_eps(text) == float(numerator) / float(denominator or 1)


@pytest.mark.parametrize("text", ["", "8/", "8/0", "eight", "0", "-0.1", "2", "nan", "1/2/3"])
def test_impossible_bound_is_refused_by_its_value(text):
    with pytest.raises(InputError, match="8/255") as caught:
        parse_eps(text)
    assert f"'{text}'" in str(caught.value)


# --- code from elsewhere


@pytest.fixture
def foreign(tmp_path) -> Path:
    """The description of a model that is not there."""
    described = {"model": "gone.pt", "spacing_mm": [2, 2, 2], "structures": [STRUCTURE]}
    (tmp_path / "model.json").write_text(json.dumps(described))
    return tmp_path / "model.json"


def test_foreign_code_is_not_run_where_nobody_can_be_asked(head, foreign, tmp_path):
    sentence = refusal("check", head, "--target", foreign, "-o", tmp_path / "out")
    assert "--trust" in sentence and "gone.pt" in sentence and "cannot be read" not in sentence


def test_foreign_code_of_a_second_opinion_is_not_run_unasked_either(head, foreign, tmp_path):
    assert "--trust" in refusal("check", head, *BRAIN, "--second-opinion", foreign, "-o", tmp_path / "out")


def test_foreign_code_is_not_run_when_the_answer_is_no(head, foreign, tmp_path):
    code, screen = on_a_terminal("attack", head, "--target", foreign, "-o", tmp_path / "a.nrrd", answer="n\n")
    assert code == 3 and "Go on?" in screen and "cannot be read" not in screen


def test_foreign_code_is_run_when_the_answer_is_yes(head, foreign, tmp_path):
    code, screen = on_a_terminal("check", head, "--target", foreign, "-o", tmp_path / "out", answer="y\n")
    assert code == 2 and "Go on?" in screen and "cannot be read" in screen


def test_foreign_code_is_run_unasked_when_trusted(head, foreign, tmp_path):
    assert "cannot be read" in refusal("check", head, "--target", foreign, "--trust", "-o", tmp_path / "out")


def test_foreign_code_of_a_benchmark_is_not_run_unasked(foreign, tmp_path):
    sentence = refusal("benchmark", "--targets", foreign, "--work", tmp_path / "work", "-o", tmp_path / "out")
    assert "--trust" in sentence and "gone.pt" in sentence


def test_foreign_code_that_a_benchmark_asks_as_well_is_not_run_unasked(foreign, tmp_path):
    places = ("--work", tmp_path / "work", "-o", tmp_path / "out")
    sentence = refusal("benchmark", "--quick", "--second-opinion", foreign, *places)
    assert "--trust" in sentence and "gone.pt" in sentence


@pytest.mark.parametrize("names", [("--target",), ("--target", BRAIN[1], "--begin")])
def test_foreign_code_is_not_hardened_unasked(head, foreign, tmp_path, names):
    places = ("--work", tmp_path / "work", "-o", tmp_path / "copy.json")
    sentence = refusal("harden", head.parent, *names, foreign, *places)
    assert "--trust" in sentence and "gone.pt" in sentence
    assert not (tmp_path / "work").exists()


# --- cancelling and faults


def test_ctrl_c_leaves_nothing_behind(head, tmp_path):
    command = [*MEDSHIELD, "check", str(head), *BRAIN, "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while "Segmenting" not in run.stderr.readline():
            assert run.poll() is None
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 3
        assert time.monotonic() - began < 5
        assert run.stderr.read().splitlines()[-1] == "Cancelled; nothing is left half-written."
    assert list(tmp_path.iterdir()) == []


def test_fault_is_one_sentence_and_debug_shows_where():
    code = "from MedShieldLib import cli, jobs; jobs.CheckJob.run = lambda *_: 1 / 0; cli.main()"
    arguments = ("check", "x", *BRAIN, "-o", "y")
    run = medshield(*arguments, command=(sys.executable, "-c", code))
    assert run.returncode == 1 and "--debug" in run.stderr and "Traceback" not in run.stderr
    run = medshield(*arguments, "--debug", command=(sys.executable, "-c", code))
    assert run.returncode == 1 and "Traceback" in run.stderr and "ZeroDivisionError" in run.stderr


def test_missing_library_names_its_extra(tmp_path):
    code = "import sys; sys.modules['nilearn'] = None; from MedShieldLib.cli import main; main()"
    run = medshield("demo", "-o", tmp_path, command=(sys.executable, "-c", code))
    assert run.returncode == 2 and "medshield[train]" in run.stderr


# --- looking around


def test_version():
    assert medshield("--version").stdout == f"medshield {__version__}\n"


def test_help_tells_commands_and_exit_codes():
    text = medshield("--help").stdout
    for word in ("check", "attack", "calibrate", "train-target", "info", "targets", "demo", "Exit codes"):
        assert word in text


def test_info_says_what_a_volume_holds(head):
    run = medshield("info", head)
    assert run.returncode == 0
    assert "196 x 232 x 188" in run.stdout and "float32" in run.stdout and "yes" in run.stdout


def test_info_says_why_a_volume_cannot_be_checked(tmp_path):
    Volume(np.full((20, 20, 20), 7, np.int16)).write(tmp_path / "flat.nrrd")
    run = medshield("info", tmp_path / "flat.nrrd")
    assert run.returncode == 0 and "no: " in run.stdout


def test_targets_are_listed_with_their_structures():
    run = medshield("targets")
    assert run.returncode == 0 and "brain-tissue: CSF, Grey matter, White matter" in run.stdout
    assert "deepbet" in run.stdout


def test_progress_bar_on_a_terminal_names_the_step(head, tmp_path):
    code, screen = on_a_terminal("check", head, *BRAIN, "--quick", "-o", tmp_path / "out")
    assert code in (0, 10, 20) and "Segmenting" in screen and "100%" in screen and "\x1b[" in screen


def on_a_terminal(*arguments: object, answer: str = "") -> tuple[int, str]:
    """Run a command on a terminal of its own: exit code and all that was shown."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [*MEDSHIELD, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    os.write(controller, answer.encode())
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(controller)
    return process.wait(60), shown.decode(errors="replace")


def test_number_of_versions_is_checked_before_anything_is_read(head, tmp_path):
    out = tmp_path / "out"
    run = medshield("check", head, *BRAIN, "--versions", 4, "--quick", "-o", out)
    assert run.returncode == 2 and "contradict" in run.stderr and not out.exists()
    run = medshield("check", head, *BRAIN, "--versions", 1, "-o", out)
    assert run.returncode == 2 and "versions" in run.stderr and not out.exists()
