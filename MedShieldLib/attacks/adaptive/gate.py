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
from MedShieldLib.versions import Source, votes

_ABSENT_CELLS = 8.0  # as in `detector.disagreement`


@dataclass(frozen=True)
class Look:
    """What the attacker learns about one input.

    Attributes:
        harm: gradient of the soft Dice loss of the plain answer, of the shape of the input.
        alarm: gradient of the instability.
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
        self.scale = shield.calibration.normaliser
        self.threshold = loudest_silent(shield.calibration, shield.alpha)

    def look(self, x: torch.Tensor) -> Look:
        """Both gradients at `x`, and how loud it is; every look draws afresh."""
        x = x.detach().requires_grad_()
        logits = self.case.logits(x)
        harm = torch.autograd.grad(soft_dice(logits, self.case.reference), x, retain_graph=True)[0]
        p = torch.softmax(logits, dim=1)
        fixed = p.detach().requires_grad_()
        by_input, by_answer, heard = torch.zeros_like(x), torch.zeros_like(p), 0.0
        for seed in self._seeds():
            # Once without gradients, which shows how loud each part is; then again, a version at a time.
            with torch.no_grad():
                others = list(self.observed(x, seed))
            instability, weights = self._heard(fixed.detach(), others)
            heard += instability / self.rounds
            for number, q in enumerate(self.observed(x, seed)):
                loudness = self._share(fixed, q, number, others, weights) / self.rounds
                gradients = torch.autograd.grad(loudness, (x, fixed))
                by_input += gradients[0]
                by_answer += gradients[1]
        alarm = by_input + torch.autograd.grad(p, x, by_answer)[0]
        return Look(harm, alarm, heard, heard / self.threshold)

    def loudness(self, x: torch.Tensor) -> float:
        """The ratio of `Look` at `x`, without gradients and by fresh draws."""
        heard = 0.0
        with torch.no_grad():
            p = torch.softmax(self.case.logits(x), dim=1)
            for seed in self._seeds():
                heard += self._heard(p, list(self.observed(x, seed)))[0]
        return heard / self.rounds / self.threshold

    def voting(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Probabilities mapped back, of every draw of one look that votes on the defended segmentation."""
        for seed in self._seeds():
            for version, answer in zip(self.versions, self.observed(x, seed), strict=True):
                if votes(version):
                    yield answer

    def _seeds(self) -> list[int]:
        """Of the rounds of one look."""
        return [int(torch.randint(2**31, (1,), generator=self.case.generator)) for _ in range(self.rounds)]

    def observed(self, x: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
        """One round as `observation.observe` would make it with that seed."""
        case, written = self.case, self.case.written(x)
        source = Source(written, case.grid, case.target.finest_mm)
        rng = np.random.default_rng(seed)
        exact = torch.from_numpy(np.asarray(written.voxels, dtype=np.float32))
        for version in self.versions:
            # The forward values are those of the written file; the gradient is that of the change. It is
            # made anew for each version, so that each can be differentiated and forgotten.
            change = (x - x.detach())[0, 0] * case.width
            seen, restore = view(version, source, exact + change, rng)
            drawn = case.volume.with_voxels(seen.detach().numpy())
            units = (seen - exact)[None, None] / case.width + case.x
            yield restore(torch.softmax(case.answer(drawn, units), dim=1))

    def _heard(self, p: torch.Tensor, others: list[torch.Tensor]) -> tuple[float, _Weights]:
        """The detector's instability of one round, and its derivatives by what it is made of."""
        apart = torch.stack([disagreement(p, q) for q in others]).requires_grad_()
        pairs = detector.pairs(len(others))
        between = [disagreement(others[a], others[b]) for a, b in pairs]
        spread = torch.stack(between).requires_grad_() if between else torch.ones(0, apart.shape[1])
        with torch.enable_grad():
            instability = self._instability(apart, spread)
            by_apart = torch.autograd.grad(instability, apart, retain_graph=True)[0]
            by_spread = torch.autograd.grad(instability, spread)[0] if pairs else spread
        return float(instability.detach()), _Weights(by_apart, by_spread)

    def _instability(self, apart: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """`Normaliser.instability`, differentiable: of (V, S) disagreements and (P, S) dispersions."""
        scale = self.scale
        own = (apart / torch.from_numpy(scale.benign).float()).mean(0)
        if len(spread):
            wide = (spread / torch.from_numpy(scale.benign_dispersion).float()).mean(0)
        else:
            wide = torch.ones_like(own)
        standing_out = own ** (1 + scale.UNEXPLAINED) / wide.clamp(min=scale.LEAST_SPREAD)
        return standing_out.square().mean().sqrt()

    @staticmethod
    def _share(
        p: torch.Tensor, q: torch.Tensor, number: int, others: list[torch.Tensor], weights: _Weights
    ) -> torch.Tensor:
        """What the answer `q` to one version adds to the instability, to first order."""
        share = (weights.apart[number] * disagreement(p, q)).sum()
        for n, pair in enumerate(detector.pairs(len(others))):
            if number in pair:
                other = others[pair[0] + pair[1] - number]
                share = share + (weights.spread[n] * disagreement(q, other)).sum()
        return share


@dataclass(frozen=True)
class _Weights:
    """Derivatives of the instability by the disagreements (V, S) and the dispersions (P, S)."""

    apart: torch.Tensor
    spread: torch.Tensor


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
