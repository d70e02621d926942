"""False alarms of a calibration on its own clean volumes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from MedShieldLib.evaluation import false_alarms
from MedShieldLib.evaluation.false_alarms import ALPHA, left_out


def test_a_subject_is_judged_by_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    subjects = tuple(f"s{n // 4}" for n in range(80))
    scores = rng.lognormal(0, 0.1, 80)
    assert (left_out(scores, subjects) <= ALPHA).mean() < 0.15
    strange = scores.copy()
    strange[:4] *= 5  # all of one subject: they must not excuse each other
    values = left_out(strange, subjects)
    assert (values[:4] <= ALPHA).all() and (values[4:] <= ALPHA).sum() <= 4


def test_the_shipped_calibration_is_told_with_its_second_opinion(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("sys.argv", ["false_alarms"])
    false_alarms.main()
    text = capsys.readouterr().out
    kinds = re.findall(r"^(.*) alarms at 5%: (\d+) of (\d+)", text, re.M)
    assert [kind for kind, *_ in kinds] == [
        "attack",
        "novelty",
        "attack, with the opinion of brain-tissue-robust,",
    ]
    assert all(int(alarms) < 0.1 * int(scores) for _, alarms, scores in kinds)
    whose = re.findall(r" alarms at 5%: (\d+) of .*\n  of (.*)", text)
    assert len(whose) == sum(alarms != "0" for _, alarms, _ in kinds)
    assert all(int(alarms) == sum(map(int, re.findall(r"\((\d+)\)", of))) for alarms, of in whose)
