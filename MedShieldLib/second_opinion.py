"""The second opinion: where another target contradicts the one under protection.

An attacker can mislead one model alike in all versions of a volume, which no test of its consistency can see.
A model that was built or trained otherwise is not misled with it, unless the attacker knows both; then one
that was made hard to mislead holds out longer.

It is asked once, about the volume seen from another place: that costs no more than asking about the volume
itself and hardly moves a clean answer, but who attacks both models must mislead this one from wherever it may
look. A filter as strong as those of the family would not do, for they are chosen for the other target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from MedShieldLib.targets.base import Target, answer_of
from MedShieldLib.targets.grid import WorkingGrid
from MedShieldLib.versions import Moved, Source
from MedShieldLib.volume import Structure, Volume

PLACE = Moved(3, False)
# What is compared where no structures bear the same name.
EVERYTHING = "everything"
# Keeps the draw apart from those of the family, which must not depend on who else is asked.
_STREAM = 2
# Below this soft volume (in cells) a structure is absent, as in `detector.disagreement`.
_ABSENT_CELLS = 8.0

Match = tuple[str, tuple[int, ...], tuple[int, ...]]


def matches(ours: Sequence[Structure], theirs: Sequence[Structure]) -> tuple[Match, ...]:
    """What two targets both draw: a name, and its classes in the answers of the first and the second one.

    Structures of the same name, whatever the case of its letters. Where there are none, all that the one
    draws together is compared with all that the other does.
    """
    named = {structure.name.casefold(): n for n, structure in enumerate(theirs, 1)}
    shared = tuple(
        (structure.name, (n,), (named[structure.name.casefold()],))
        for n, structure in enumerate(ours, 1)
        if structure.name.casefold() in named
    )
    everything = tuple(range(1, len(ours) + 1)), tuple(range(1, len(theirs) + 1))
    return shared or ((EVERYTHING, *everything),)


def contradictions(
    target: Target, answer: np.ndarray, second: Target, volume: Volume, seed: int
) -> np.ndarray:
    """How far a second target contradicts an answer, by one inference.

    Args:
        target: the one that gave `answer`.
        answer: (C, K', J', I') to `volume`.
        second: who is asked.
        volume: the volume in question.
        seed: of the place from which the second target sees it.

    Returns:
        (M, 2) in [0, 1]: `missed_and_added` for each of `matches`.

    Raises:
        InputError: if the second target cannot segment the volume.
    """
    grid = second.grid(volume)
    draw = PLACE.draw(Source(volume, grid, second.finest_mm), generator(seed))
    other = answer_of(second, draw.volume)
    assert draw.restore is not None
    with torch.inference_mode():
        pair = comparable(
            matches(target.structures, second.structures),
            (torch.from_numpy(np.ascontiguousarray(answer)), target.grid(volume)),
            (torch.from_numpy(np.ascontiguousarray(draw.restore(other))), grid),
        )
        return missed_and_added(*pair).double().numpy()


def generator(seed: int) -> np.random.Generator:
    """Of the place from which the second target sees a volume, for the seed of a check."""
    return np.random.default_rng((seed, _STREAM))


def comparable(
    matched: Sequence[Match], ours: tuple[torch.Tensor, WorkingGrid], theirs: tuple[torch.Tensor, WorkingGrid]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two answers (C, K', J', I'), each with its grid, as (M, ...) on the coarser grid; differentiable.

    Not on the volume's own grid: there a large scan would take gigabytes, and no network saw it that finely.
    """
    grid = min((grid for _, grid in (ours, theirs)), key=lambda grid: math.prod(grid.shape))
    first, second = ([classes[n] for _, *classes in matched] for n in (0, 1))
    return _gathered(*ours, first, grid), _gathered(*theirs, second, grid)


def missed_and_added(answer: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(M, 2) for two answers (M, K', J', I'): shares of `other` that `answer` misses, and of `answer` beyond.

    Two models seldom mean the same by a name: one mask of the brain has the membranes inside, another one
    only the tissue. So either side has a clean level of its own, and what is added as a rule must not drown
    what is missed. Differentiable; 0 where there is nothing to miss or to add to.
    """
    apart = (other - answer).flatten(1)
    sides = torch.stack([apart.clamp(min=0).sum(1), (-apart).clamp(min=0).sum(1)], 1)
    wholes = torch.stack([other.flatten(1).sum(1), answer.flatten(1).sum(1)], 1)
    return torch.where(wholes > _ABSENT_CELLS, sides / wholes.clamp(min=_ABSENT_CELLS), 0 * sides)


def _gathered(
    answer: torch.Tensor, own: WorkingGrid, classes: Sequence[tuple[int, ...]], grid: WorkingGrid
) -> torch.Tensor:
    """(M, ...) sums over groups of classes, on another grid."""
    return torch.stack([own.onto(_any_of(answer, group), grid) for group in classes])


def _any_of(answer: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """(K', J', I'): the probability of any of some classes."""
    return torch.stack([answer[n] for n in classes]).sum(0) if len(classes) > 1 else answer[classes[0]]
