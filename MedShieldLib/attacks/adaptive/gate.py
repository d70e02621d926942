"""The shield's check as its attacker rebuilds it: differentiable, with draws of the attacker's own.

Knows how to look at one input; how to search with what it sees is in the attacks' files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from MedShieldLib import detector
from MedShieldLib.attacks.adaptive.views import view
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import soft_dice
from MedShieldLib.calibration import Calibration
from MedShieldLib.shield import Shield
from MedShieldLib.versions import Source

_ABSENT_CELLS = 8.0  # as in `detector.disagreement`


@dataclass(frozen=True)
class Look:
    """What the attacker learns about one input.

    Attributes:
        harm: gradient of the soft Dice loss of the plain answer, of the shape of the input.
        alarm: gradient of the instability, weighted over structures.
        instability: the detector's, estimated from the attacker's draws.
        ratio: instability / the largest that raises no alarm; silent up to 1.
    """

    harm: torch.Tensor
    alarm: torch.Tensor
    instability: float
    ratio: float


class Gate:
    """The check of one case.

    Args:
        case: what is attacked.
        shield: what stands before it; its seed is not looked at.
        draws: of versions in one look, at least; a look takes whole rounds of the family.
    """

    def __init__(self, case: Case, shield: Shield, draws: int) -> None:
        self.case, self.versions = case, shield.calibration.versions
        self.rounds = max(1, -(-draws // len(self.versions)))
        self.benign = torch.from_numpy(shield.calibration.normaliser.benign).float()
        self.threshold = loudest_silent(shield.calibration, shield.alpha)
        self._weights = torch.full((self.benign.shape[1],), 1 / self.benign.shape[1])

    @property
    def passes(self) -> int:
        """Runs of the target's network in one look."""
        return 1 + self.rounds * len(self.versions)

    def look(self, x: torch.Tensor) -> Look:
        """Both gradients at `x`, and how loud it is; every look draws afresh."""
        x = x.detach().requires_grad_()
        logits = self.case.logits(x)
        harm = torch.autograd.grad(soft_dice(logits, self.case.reference), x, retain_graph=True)[0]
        p = torch.softmax(logits, dim=1)
        fixed = p.detach().requires_grad_()
        by_input, by_answer = torch.zeros_like(x), torch.zeros_like(p)
        apart = torch.zeros_like(self.benign)
        for number, q in self.answers(x):
            relative = disagreement(fixed, q) / self.benign[number]
            apart[number] += relative.detach() / self.rounds
            loudness = (self._weights * relative).sum() / (self.rounds * len(self.versions))
            gradients = torch.autograd.grad(loudness, (x, fixed))
            by_input += gradients[0]
            by_answer += gradients[1]
        alarm = by_input + torch.autograd.grad(p, x, by_answer)[0]
        instability = self._weigh(apart)
        return Look(harm, alarm, instability, instability / self.threshold)

    def loudness(self, x: torch.Tensor) -> float:
        """The ratio of `Look` at `x`, without gradients and by fresh draws."""
        with torch.no_grad():
            p = torch.softmax(self.case.logits(x), dim=1)
            apart = torch.zeros_like(self.benign)
            for number, q in self.answers(x):
                apart[number] += disagreement(p, q) / self.benign[number] / self.rounds
        return float(_quadratic_mean(apart.mean(0))) / self.threshold

    def answers(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(number of the version, probabilities mapped back) for every draw of one look."""
        for _ in range(self.rounds):
            seed = int(torch.randint(2**31, (1,), generator=self.case.generator))
            yield from self.observed(x, seed)

    def observed(self, x: torch.Tensor, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
        """One round as `observation.observe` would make it with that seed."""
        case, written = self.case, self.case.written(x)
        source = Source(written, case.grid, case.target.finest_mm)
        rng = np.random.default_rng(seed)
        exact = torch.from_numpy(np.asarray(written.voxels, dtype=np.float32))
        for number, version in enumerate(self.versions):
            # The forward values are those of the written file; the gradient is that of the change. It is
            # made anew for each version, so that each can be differentiated and forgotten.
            change = (x - x.detach())[0, 0] * case.width
            seen, restore = view(version, source, exact + change, rng)
            drawn = case.volume.with_voxels(seen.detach().numpy())
            units = (seen - exact)[None, None] / case.width + case.x
            yield number, restore(torch.softmax(case.answer(drawn, units), dim=1))

    def _weigh(self, apart: torch.Tensor) -> float:
        """The detector's instability; the next look presses on each structure by its share in this one.

        These weights are the derivatives of the quadratic mean at the present ratios of the structures.
        """
        per_structure = apart.mean(0)
        instability = _quadratic_mean(per_structure)
        self._weights = per_structure / (len(per_structure) * instability.clamp(min=1e-6))
        return float(instability)


def _quadratic_mean(per_structure: torch.Tensor) -> torch.Tensor:
    """As in `Normaliser.instability`."""
    return per_structure.square().mean().sqrt()


def disagreement(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """`detector.disagreement`, differentiable: (S,) of two answers (1, S + 1, K', J', I')."""
    apart = (p - q)[0, 1:].abs().flatten(1).sum(1)
    total = (p + q)[0, 1:].flatten(1).sum(1)
    return torch.where(total > _ABSENT_CELLS, apart / total.clamp(min=_ABSENT_CELLS), 0 * apart)


def loudest_silent(calibration: Calibration, alpha: float) -> float:
    """The largest instability that raises no alarm at `alpha`, by bisection of the detector's own p-value."""
    quiet, loud = 0.0, 1e4
    while loud - quiet > 1e-4 * max(loud, 1e-3):
        middle = (quiet + loud) / 2
        p = detector.p_value(middle, calibration.instability, calibration.subjects)
        quiet, loud = (middle, loud) if p > alpha else (quiet, middle)
    return quiet
