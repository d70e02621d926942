"""The command lines of studies and trainings, given what cannot be used."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.study import exit_code

COMMANDS = {
    "evaluation.denoising": (),
    "evaluation.false_alarms": (),
    "evaluation.fresh_target": ("--out",),
    "evaluation.headline": (),
    "evaluation.lesions": (),
    "evaluation.own_compute": (),
    "evaluation.twin": (),
    "training.calibrate": ("--out",),
    "training.denoiser": ("--work",),
    "training.robust": ("--work",),
    "training.validate": ("--work",),
}


@pytest.mark.parametrize(("name", "options"), COMMANDS.items(), ids=COMMANDS)
def test_bad_input_gets_one_plain_sentence_and_nothing_is_written(
    name: str,
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written = [part for option in options for part in (option, str(tmp_path / "out"))]
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "missing"), *written])
    assert import_module(f"MedShieldLib.{name}").main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / "missing") in said and said.endswith(".\n")
    assert not list(tmp_path.iterdir())


def test_a_study_that_ends_well_says_so_and_a_bug_is_not_taken_for_bad_input() -> None:
    @exit_code
    def fine() -> None:
        """Does nothing."""

    @exit_code
    def refused() -> None:
        raise InputError("x.nii.gz is empty.")

    @exit_code
    def broken() -> None:
        raise ValueError("a bug")

    assert fine() == 0 and refused() == 2 and fine.__doc__ == "Does nothing."
    with pytest.raises(ValueError, match="a bug"):
        broken()
