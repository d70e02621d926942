"""Evenly spaced samples of large arrays: for what a few million of its values tell as well as all."""

from __future__ import annotations


def step(size: int, most: int) -> int:
    """Every how many-th value along each of three axes leaves about `most` of `size`; 1 takes all."""
    return max(1, round((size / most) ** (1 / 3)))
