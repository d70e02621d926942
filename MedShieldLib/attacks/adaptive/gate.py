"""The shield's check as its attacker rebuilds it: differentiable, with draws of the attacker's own.

Knows how to look at one input; how to search with what it sees is in the attacks' files, and how to look
through a second target, where the shield asks one, in `second_target.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from MedShieldLib import detector
from MedShieldLib.attacks.adaptive.second_target import SecondTarget
from MedShieldLib.attacks.adaptive.views import answer_to_view, disagreement, larger, log
from MedShieldLib.attacks.base import Case
from MedShieldLib.attacks.losses import soft_dice
from MedShieldLib.shield import Shield
from MedShieldLib.versions import Source, nudges, votes


@dataclass(frozen=True)
class Look:
    """What the attacker learns about one input.

    Attributes:
        plain: gradient of the soft Dice loss of the plain answer, of the shape of the input.
        company: of that of the answers to the versions that vote, on average, and of the second target's.
        alarm: gradient of the attack score.
        score: the shield's attack score, estimated from the attacker's draws.
        ratios: of each round, which stands for one check: score / the largest that raises no alarm; silent
            up to 1.
    """

    plain: torch.Tensor
    company: torch.Tensor
    alarm: torch.Tensor
    score: float
    ratios: tuple[float, ...]

    @property
    def harm(self) -> torch.Tensor:
        """Of all answers: what misleads them alike is stable."""
        return self.plain + self.company

    @property
    def ratio(self) -> float:
        """The mean of `ratios`."""
        return float(np.mean(self.ratios))


class Gate:
    """The check of one case.

    Args:
        case: what is attacked.
        shield: what stands before it; its seed is not looked at.
        draws: of versions in one look, at least; a look takes whole rounds of the family.

    Raises:
        InputError: if the shield asks a second target that shows no gradients, or finds nothing here.
    """

    def __init__(self, case: Case, shield: Shield, draws: int) -> None:
        self.case, self.versions = case, tuple(shield.calibration.versions)
        self.rounds = max(1, -(-draws // len(self.versions)))
        self.scale = shield.calibration.normaliser
        self.second = SecondTarget.of(case, shield)
        self.threshold = loudest_silent(shield)

    def look(self, x: torch.Tensor) -> Look:
        """Both gradients at `x`, and how loud it is; every look draws afresh."""
        x = x.detach().requires_grad_()
        logits = self.case.logits(x)
        p = torch.softmax(logits, dim=1)
        plain = torch.autograd.grad(soft_dice(logits, self.case.reference), x, retain_graph=True)[0]
        slopes = _Slopes(x, p.detach().requires_grad_())
        heard = [self._listen(slopes, seed) for seed in self.seeds()]
        alarm = slopes.by_input + torch.autograd.grad(p, x, slopes.by_answer)[0]
        ratios = tuple(score / self.threshold for score in heard)
        return Look(plain, slopes.company, alarm, float(np.mean(heard)), ratios)

    def _listen(self, slopes: _Slopes, seed: int) -> float:
        """The score of one round; adds its gradients to the slopes."""
        x, p = slopes.x, slopes.answer
        # Once without gradients, which shows how loud each part is; then again, a version at a time.
        with torch.no_grad():
            others = list(self.observed(x, seed))
            opinion = self._opinion(p, x, seed)
        score, weights = self._heard(p.detach(), others, opinion)
        voters = sum(map(votes, self.versions))
        for number, q in enumerate(self.observed(x, seed)):
            if votes(self.versions[number]):
                slopes.add_company(self.harm(q) / (voters * self.rounds))
            slopes.add_share(self._share(p, q, number, others, weights) / self.rounds)
        if self.second is not None:
            q = self._second_answer(x, seed)
            slopes.add_company(self.second.harm(q) / self.rounds)
            if weights.opinion.any():
                slopes.add_share((weights.opinion * self.second.contradictions(p, q)).sum() / self.rounds)
        return score

    def harm(self, q: torch.Tensor) -> torch.Tensor:
        """Soft Dice loss of probabilities (1, C, K', J', I'), which grows as they leave the clean answer."""
        return soft_dice(log(q), self.case.reference)

    def loudness(self, x: torch.Tensor) -> float:
        """The ratio of `Look` at `x`, without gradients and by fresh draws."""
        return float(np.mean(self.ratios(x)))

    def ratios(self, x: torch.Tensor, rounds: int | None = None) -> tuple[float, ...]:
        """The ratios of `Look` at `x`, without gradients and by fresh draws; of as many rounds, or more."""
        heard = []
        with torch.no_grad():
            p = torch.softmax(self.case.logits(x), dim=1)
            for seed in self.seeds(rounds):
                others = list(self.observed(x, seed))
                heard.append(self._heard(p, others, self._opinion(p, x, seed))[0] / self.threshold)
        return tuple(heard)

    def seeds(self, rounds: int | None = None) -> list[int]:
        """Of the rounds of one look, or of another number of them."""
        rounds = rounds or self.rounds
        return [int(torch.randint(2**31, (1,), generator=self.case.generator)) for _ in range(rounds)]

    def observed(self, x: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
        """One round as `observation.observe` would make it with that seed."""
        case, written = self.case, self.case.written(x)
        source = Source(written, case.grid, case.target.finest_mm, seed)
        rng = np.random.default_rng(seed)
        for version in self.versions:
            # Made anew for each version, so that each can be differentiated and forgotten.
            yield answer_to_view(version, case, source, case.change(x), rng)

    def _opinion(self, p: torch.Tensor, x: torch.Tensor, seed: int) -> torch.Tensor:
        """(M, 2) how far the second target contradicts the answer `p`; (0,) where the shield asks none."""
        if self.second is None:
            return torch.zeros(0)
        return self.second.contradictions(p, self._second_answer(x, seed))

    def _second_answer(self, x: torch.Tensor, seed: int) -> torch.Tensor:
        assert self.second is not None
        return self.second.answer(self.case.written(x), self.case.change(x), seed)

    def _heard(
        self, p: torch.Tensor, others: list[torch.Tensor], opinion: torch.Tensor
    ) -> tuple[float, _Weights]:
        """The shield's attack score of one round, and its derivatives by what it is made of."""
        parts = [x.detach().requires_grad_() for x in (*self._evidence(p, others), opinion)]
        with torch.enable_grad():
            score = self._score(*parts)
            weights = torch.autograd.grad(score, parts, allow_unused=True, materialize_grads=True)
        return float(score.detach()), _Weights(*weights)

    def _score(self, apart: torch.Tensor, spread: torch.Tensor, opinion: torch.Tensor) -> torch.Tensor:
        """`Shield.attack_score`, differentiable."""
        instability = self._instability(apart, spread)
        return instability if self.second is None else self.second.fused(instability, opinion)

    def instability(self, p: torch.Tensor, others: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of the answer `p` and those to all versions."""
        return self._instability(*self._evidence(p, others))

    def _instability(self, apart: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """`Normaliser.instability`, differentiable: of (V, S) disagreements and (P, S) dispersions."""
        scale = self.scale
        relative = apart / torch.from_numpy(scale.benign).float()
        if len(spread):
            wide = (spread / torch.from_numpy(scale.benign_dispersion).float()).mean(0)
        else:
            wide = torch.ones_like(relative[0])
        alone = detector.standing_out(relative, wide, scale.nudges)
        if scale.symmetry is None:
            return alone
        return larger(alone, scale.symmetry.score(relative[-2:]))

    def _share(
        self, p: torch.Tensor, q: torch.Tensor, number: int, others: list[torch.Tensor], weights: _Weights
    ) -> torch.Tensor:
        """What the answer `q` to one version adds to the instability, to first order."""
        share = (weights.apart[number] * disagreement(p, q)).sum()
        for n, pair in enumerate(self._pairs):
            if number in pair:
                other = others[pair[0] + pair[1] - number]
                share = share + (weights.spread[n] * disagreement(q, other)).sum()
        return share

    def _evidence(self, p: torch.Tensor, others: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(V, S) disagreements and (P, S) dispersions."""
        apart = torch.stack([disagreement(p, q) for q in others])
        between = [disagreement(others[a], others[b]) for a, b in self._pairs]
        return apart, torch.stack(between) if between else torch.zeros(0, apart.shape[1])

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        """Of versions that are no nudges."""
        return detector.pairs(len(self.versions) - nudges(self.versions))


@dataclass
class _Slopes:
    """Gradients of one look, added up version by version.

    Attributes:
        x: the input.
        answer: the plain answer, by which the score is differentiated apart, so that its graph is kept once.
        company: of the loss of other answers, by the input.
        by_input, by_answer: of the score, by either.
    """

    x: torch.Tensor
    answer: torch.Tensor

    def __post_init__(self) -> None:
        self.company, self.by_input = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.by_answer = torch.zeros_like(self.answer)

    def add_company(self, loss: torch.Tensor) -> None:
        """Of an answer that is differentiated once more."""
        self.company += torch.autograd.grad(loss, self.x, retain_graph=True)[0]

    def add_share(self, share: torch.Tensor) -> None:
        """In the score."""
        by_input, by_answer = torch.autograd.grad(share, (self.x, self.answer), materialize_grads=True)
        self.by_input += by_input
        self.by_answer += by_answer


@dataclass(frozen=True)
class _Weights:
    """Derivatives of the score by disagreements (V, S), dispersions (P, S), and contradictions (M, 2)."""

    apart: torch.Tensor
    spread: torch.Tensor
    opinion: torch.Tensor


def loudest_silent(shield: Shield) -> float:
    """The largest attack score that raises no alarm."""
    return detector.loudest_silent(shield.alpha, shield.clean_scores, shield.calibration.subjects)
