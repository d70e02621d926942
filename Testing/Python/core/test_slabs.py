"""Slabs: every row once, in order, whatever their number and the number of threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from MedShieldLib import slabs


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_row_is_visited_once_and_answers_come_in_order(
    monkeypatch: pytest.MonkeyPatch, threads: int, axis: int
) -> None:
    monkeypatch.setattr(slabs, "_VOXELS", 100)
    monkeypatch.setattr(slabs, "workers", lambda: threads)
    array = np.zeros((23, 31, 4))
    seen = slabs.each(array, lambda rows: list(range(rows.start, rows.stop)), axis)
    assert len(seen) > 3
    assert [row for rows in seen for row in rows] == list(range(array.shape[axis]))


def test_slabs_are_as_high_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_VOXELS", 1)
    heights = slabs.each(np.zeros((23, 5)), lambda rows: rows.stop - rows.start, least=6)
    assert heights == [6, 6, 6, 5]


def test_a_small_array_is_one_slab() -> None:
    assert slabs.each(np.zeros((4, 5)), lambda rows: rows) == [slice(0, 4)]


def test_an_error_in_a_slab_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_VOXELS", 1)
    monkeypatch.setattr(slabs, "workers", lambda: 2)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        slabs.each(np.zeros((5, 5)), lambda rows: 1 // rows.start)
    assert threading.active_count() == before
