"""The study of the robust twin: contradictions per head and structure, and what attacks leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedShieldLib import Volume
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import twin
from MedShieldLib.targets.network import NetworkTarget

Heads = list[tuple[str, Volume]]


def numbers(line: str) -> list[float]:
    return [
        float(x) for cell in line.strip("| ").split("|")[1:] for x in cell.split("/") if "255" not in cell
    ]


def test_who_is_asked_about_itself_hardly_contradicts(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    heading, _, *lines = twin.contradictions(small_target, small_target, small_heads[:2])
    assert all(structure.name in heading for structure in small_target.structures)
    assert [line.split("|")[1].strip() for line in lines] == [name for name, _ in small_heads[:2]]
    for line in lines:
        assert len(numbers(line)) == 2 * len(small_target.structures) and max(numbers(line)) < 0.25


def test_a_larger_bound_leaves_less(small_target: NetworkTarget, small_heads: Heads) -> None:
    other = replace_name(small_target)
    heading, _, *lines = twin.left_of((small_target, other), small_heads[:1], steps=5)
    assert "other" in heading and len(lines) == len(twin.BOUNDS)
    found = [numbers(line) for line in lines]
    assert all(row[0] == row[1] for row in found)  # the same network
    assert found[1][0] < found[0][0] <= 1


def replace_name(target: NetworkTarget) -> NetworkTarget:
    other = object.__new__(NetworkTarget)
    other.__dict__.update(target.__dict__, name="other")
    return other


def test_a_folder_without_the_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the heads, such as volumes/mricron_ch2\.nii\.gz"):
        twin.volumes(tmp_path, twin.UNSEEN)
