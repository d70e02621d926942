"""The benchmark of what a check costs beside the target's inferences."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedShieldLib.evaluation import own_compute
from MedShieldLib.result import Verdict
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.volume import Volume


def test_one_shield_raises_an_alarm_and_the_other_none_and_the_parts_add_up(
    small_target: NetworkTarget, small_heads: list[tuple[str, Volume]]
) -> None:
    volume = small_heads[0][1]
    checks = [shield.check_and_segment(volume) for shield in own_compute.shields(small_target, volume)]
    assert [check.verdict for check in checks] == [Verdict.SUSPECTED_ATTACK, Verdict.CLEAN]
    for check in checks:
        seconds = [float(line[26:34]) for line in own_compute.table(check).splitlines()]
        *parts, own, inferences, whole = seconds
        assert sum(parts) == pytest.approx(own, abs=0.05)
        assert own + inferences == pytest.approx(whole, abs=0.02)
        assert whole == pytest.approx(check.timings_s["total"], abs=0.01)


def test_no_checks_at_all_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["own_compute", "--checks", "0"])
    with pytest.raises(SystemExit, match="2"):
        own_compute.main()
    assert "--checks is 0; give 1 or more" in capsys.readouterr().err


def test_a_file_that_is_no_volume_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.nii.gz"
    file.write_text("no volume")
    monkeypatch.setattr("sys.argv", ["own_compute", str(file)])
    assert own_compute.main() == 2
    assert str(file) in capsys.readouterr().err
