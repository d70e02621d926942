"""The recipe of Park et al. 2020 (arXiv 2009.11090) in own code: converter, one-class detector, reformer.

The paper says what its parts are for and leaves open how they are built. Here: slices to log magnitude
spectra; a detector of clean spectra by adversarial one-class learning (Sabokrou et al. 2018, by one of the
paper's authors); an autoencoder of clean volumes as reformer. MedShield's own parts are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from MedShieldLib.evaluation.defence import Asked, Opinion, Setting
from MedShieldLib.evaluation.fitting import fit
from MedShieldLib.evaluation.magnet import MagNet, on_grid
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Volume

STEPS = 600
# Slices are cut or filled up to this size before their spectrum is taken.
_SIZE = 96
_BATCH = 16
_RATE = 1e-3
# Noise on the spectra while training, which the reconstructor learns to remove (Sabokrou et al. 2018).
_NOISE = 0.1
# Weight of reconstruction against fooling the discriminator, as in that paper.
_RECONSTRUCTION = 0.4


@dataclass(frozen=True, eq=False)
class Published:
    """Detector: how unlike clean spectra the slices' spectra are. Reformer: the autoencoder of MagNet.

    Attributes:
        reconstruct, discriminate: the two networks of the detector.
        reformer: the trained autoencoder.
        identity: of all weights.
    """

    reconstruct: nn.Module = field(repr=False)
    discriminate: nn.Module = field(repr=False)
    reformer: MagNet
    identity: str
    name: str = "park-2020"
    wants_threshold: bool = True
    learns: bool = True

    @classmethod
    def fit(cls, setting: Setting, steps: int = STEPS, reformer_steps: int | None = None) -> Published:
        """Learn clean spectra and clean volumes.

        Raises:
            Cancelled: when asked to stop; a later call goes on.
        """
        more = {} if reformer_steps is None else {"steps": reformer_steps}
        reformer = MagNet.fit(setting, **more)
        torch.manual_seed(setting.seed)
        reconstruct, discriminate = _reconstructor(), _discriminator()
        optimizers = [torch.optim.Adam(net.parameters(), _RATE) for net in (reconstruct, discriminate)]
        clean = torch.cat([spectra(setting.target, volume) for _, volume in setting.clean])

        def step(n: int) -> None:
            generator = torch.Generator().manual_seed(setting.seed * 1_000_003 + n)
            x = clean[torch.randint(len(clean), (_BATCH,), generator=generator)]
            noisy = x + _NOISE * torch.randn(x.shape, generator=generator)
            _duel(reconstruct, discriminate, optimizers, x, noisy)

        parts = {"reconstruct": reconstruct, "discriminate": discriminate}
        learners = {f"optimizer {n}": optimizer for n, optimizer in enumerate(optimizers)}
        path = setting.folder / "park-2020.pt"
        sha256 = fit({**parts, **learners}, step, steps, path, setting.progress, setting.cancelled)
        identity = f"park-2020 {sha256[:16]} {reformer.identity}"
        return cls(reconstruct.eval(), discriminate.eval(), reformer, identity)

    def judge(self, target: Asked, volume: Volume, seed: int) -> Opinion:
        """1 - the discriminator's belief in the reconstructed spectra, mean over slices."""
        with torch.inference_mode():
            logits = self.discriminate(self.reconstruct(spectra(target, volume)))
        score = 1 - float(torch.sigmoid(logits).mean())
        return Opinion(score, self.reformer.judge(target, volume, seed).defended)


def spectra(target: Target | Asked, volume: Volume) -> torch.Tensor:
    """(N, 1, 96, 96): log magnitude spectra of the slices with tissue, about zero mean and unit variance."""
    x, _ = on_grid(target, volume)
    slices = x[x.amax(dim=(1, 2)) > 0.2]
    magnitude = torch.fft.fftshift(torch.fft.fft2(_fitted(slices)).abs(), dim=(1, 2))
    return ((torch.log(magnitude + 1e-3) - 0.5) / 2.0)[:, None]


def _fitted(slices: torch.Tensor) -> torch.Tensor:
    """(N, 96, 96): the middle of (N, J, I), zeros around where it is smaller."""
    missing = [_SIZE - n for n in reversed(slices.shape[1:])]
    return F.pad(slices, [side for n in missing for side in (n // 2, n - n // 2)])


def _reconstructor() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )


def _discriminator() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 4, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _duel(
    reconstruct: nn.Module,
    discriminate: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    x: torch.Tensor,
    noisy: torch.Tensor,
) -> None:
    """One step of each: tell clean spectra from reconstructed ones; reconstruct so that nobody can tell."""
    one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)
    guess = F.binary_cross_entropy_with_logits
    made = reconstruct(noisy)
    loss = guess(discriminate(x), one) + guess(discriminate(made.detach()), zero)
    optimizers[1].zero_grad()
    loss.backward()
    optimizers[1].step()
    loss = guess(discriminate(made), one) + _RECONSTRUCTION * F.mse_loss(made, x)
    optimizers[0].zero_grad()
    loss.backward()
    optimizers[0].step()
