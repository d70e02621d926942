"""Odd subjects of a calibration are named to who makes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib import detector, shifts, terminal
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.outliers import notes, outliers
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.volume import Volume


def of_subjects(calibration: Calibration, factors: list[float]) -> Calibration:
    """Made-up subjects that differ by luck and by a factor of their own; six scores each."""
    rng, rows = np.random.default_rng(1), 6 * len(factors)
    _, versions, structures = calibration.disagreements.shape
    luck = rng.uniform(0.9, 1.1, (rows, versions, structures))
    return replace(
        calibration,
        subjects=tuple(f"head {n}" for n in range(len(factors)) for _ in range(6)),
        shift_names=("none",) * rows,
        disagreements=0.05 * np.repeat(factors, 6)[:, None, None] * luck,
        dispersions=np.full((rows, *calibration.dispersions.shape[1:]), 0.05),
        features=rng.standard_normal((rows, calibration.features.shape[1])),
        profiles=np.zeros((rows, calibration.profiles.shape[1])),
    )


def test_the_odd_one_is_named_and_what_it_costs(small_calibration: Calibration) -> None:
    made = of_subjects(small_calibration, [1.0, 0.95, 1.05, 1.8, 1.0])
    assert outliers(made) == ("head 3",)
    (sentence,) = notes(made)
    others = made.of(np.array(made.subjects) != "head 3")
    for calibration in (made, others):
        begin = detector.loudest_silent(0.05, calibration.instability, calibration.subjects)
        assert f"{begin:.2f}" in sentence
    assert "'head 3'" in sentence


def test_subjects_that_differ_as_usual_are_none(small_calibration: Calibration) -> None:
    made = of_subjects(small_calibration, [1.0, 0.9, 1.1, 0.95, 1.05])
    assert outliers(made) == () and notes(made) == ()


def test_two_others_cannot_tell(small_calibration: Calibration) -> None:
    assert outliers(of_subjects(small_calibration, [1.0, 1.0, 5.0])) == ()


def test_an_attacked_volume_among_the_clean_ones_is_named(
    small_target: NetworkTarget, small_heads: list[tuple[str, Volume]], small_calibration: Calibration
) -> None:
    attacked = PGD()(small_target, small_heads[4][1], 24 / 255).volume
    mixed = [*small_heads[:4], ("tampered", attacked)]
    mild = (shifts.none, shifts.gamma, shifts.bias_field)  # a strong one takes an attack away
    made = calibrate(small_target, mixed, small_calibration.versions, augmentations=mild, seed=5)
    assert outliers(made, alpha=0.1) == ("tampered",)


def test_who_calibrates_reads_it(
    small_calibration: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.show_calibration(
        of_subjects(small_calibration, [1.0, 0.95, 1.05, 1.8, 1.0]), tmp_path / "c.json"
    )
    assert "Note: 'head 3' would raise an alarm" in " ".join(capsys.readouterr().out.split())


def test_the_loudest_silent_score_is_where_the_alarm_begins(small_calibration: Calibration) -> None:
    clean, subjects = small_calibration.instability, small_calibration.subjects
    begin = detector.loudest_silent(0.1, clean, subjects)
    assert detector.p_attack(begin * 0.999, clean, subjects) > 0.1
    assert detector.p_attack(begin * 1.001, clean, subjects) <= 0.1
