"""Square: random search with answers alone, no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from MedShieldLib.attacks.base import Attack, Case
from MedShieldLib.attacks.losses import Loss

# When the paper halves the share of voxels that a proposal changes, of 10 000 queries.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square(Attack):
    """Square attack (Andriushchenko et al. 2020) with cubes, black box.

    Starts with columns of +-eps along a random axis; then proposes cubes of +-eps at random places, ever
    smaller, and keeps a proposal that raises the loss.

    Attributes:
        queries: how often the target may be asked; the paper allows 10 000, twenty times as many.
        share: of the voxels that the first proposals change.
        loss: computed from the target's answer alone.
    """

    name: ClassVar[str] = "square"
    queries: int = 500
    share: float = 0.3
    loss: Loss = Loss.SOFT_DICE

    @property
    def expected_passes(self) -> int:
        return self.queries

    def perturb(self, case: Case) -> torch.Tensor:
        x = case.project(case.x + case.eps * self._columns(case))
        value = self._value(case, x)
        for query in range(1, self.queries):
            proposal = case.project(case.x + case.eps * self._with_cube(case, (x - case.x).sign(), query))
            found = self._value(case, proposal)
            if found > value:
                x, value = proposal, found
        return case.best

    def _value(self, case: Case, x: torch.Tensor) -> float:
        return float(Loss(self.loss)(case.look(x), case.reference))

    def _columns(self, case: Case) -> torch.Tensor:
        shape = list(case.x.shape)
        shape[2 + int(torch.randint(3, (1,), generator=case.generator))] = 1
        return case.uniform(shape).sign().expand(case.x.shape)

    def _with_cube(self, case: Case, signs: torch.Tensor, query: int) -> torch.Tensor:
        """`signs` with one cube at a random place set to one sign."""
        halvings = sum(query * 10_000 / self.queries > step for step in _HALVINGS)
        sizes = case.x.shape[2:]
        edge = round((self.share / 2**halvings * case.x.numel()) ** (1 / 3))
        edge = min(max(1, edge), *sizes)
        low = [int(torch.randint(n - edge + 1, (1,), generator=case.generator)) for n in sizes]
        k, j, i = (slice(n, n + edge) for n in low)
        changed = signs.clone()
        changed[..., k, j, i] = case.uniform((1,)).sign()
        return changed
