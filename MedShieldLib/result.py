"""The outcome of a check: what every face (command line, Slicer, browser) shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from MedShieldLib.volume import Segmentation, Volume

SCHEMA = "medshield-result/1"


class Verdict(str, Enum):
    """CLEAN, OUT_OF_DISTRIBUTION (unlike the calibration data, no sign of tampering) or SUSPECTED_ATTACK."""

    CLEAN = "clean"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    SUSPECTED_ATTACK = "suspected_attack"

    @property
    def exit_code(self) -> int:
        """0, 10 or 20: what `medshield check` exits with."""
        return {Verdict.CLEAN: 0, Verdict.OUT_OF_DISTRIBUTION: 10, Verdict.SUSPECTED_ATTACK: 20}[self]


def can_alarm(alpha: float, n_scores: int) -> bool:
    """Whether a p-value can be as low as `alpha`: with n clean scores none is below 1 / (n + 1)."""
    return alpha * (n_scores + 1) >= 1


@dataclass(frozen=True)
class EvidenceItem:
    """One number of the detector beside its distribution on clean volumes.

    `kind` is "instability" (speaks for an attack) or "novelty" (speaks for out of distribution).
    `percentile` is the share (0 to 100) of calibration values below `value`; `clean` those values, sorted.
    """

    name: str
    kind: str
    value: float
    percentile: float
    clean: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class StructureAgreement:
    """Original against defended segmentation for one structure. `hd95_mm` is NaN when either is empty."""

    label: int
    name: str
    dice: float
    hd95_mm: float
    original_ml: float
    defended_ml: float


@dataclass(frozen=True)
class SpectrumProfile:
    """Radial log10 power of the volume and the 5-95 % band of the calibration volumes.

    Arrays of one length; frequency in cycles/mm.
    """

    frequency: np.ndarray
    log_power: np.ndarray
    clean_low: np.ndarray
    clean_high: np.ndarray


@dataclass(frozen=True)
class TargetInfo:
    """The target that answered: its name and the SHA-256 of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True)
class CalibrationInfo:
    """The calibration that judged: its name, SHA-256, how many subjects and scores it holds."""

    name: str
    sha256: str
    n_subjects: int
    n_scores: int


@dataclass(frozen=True)
class CheckResult:
    """Everything that a check found.

    `defended` is `original` itself (bit for bit) when the verdict is CLEAN. `heatmap` is float32 in [0, 1]
    in the input's geometry. `notes` are plain sentences that the user should read (for instance that the
    calibration is too small for alpha). `second` is the target that gave a second opinion, if one was asked.
    """

    volume: Volume
    verdict: Verdict
    p_attack: float
    p_novelty: float
    alpha: float
    evidence: tuple[EvidenceItem, ...]
    structures: tuple[StructureAgreement, ...]
    original: Segmentation
    defended: Segmentation
    reformed: Volume
    heatmap: Volume
    spectrum: SpectrumProfile
    timings_s: dict[str, float]
    target: TargetInfo
    calibration: CalibrationInfo
    input_sha256: str
    seed: int
    version: str
    notes: tuple[str, ...] = ()
    second: TargetInfo | None = None

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write all results to `folder` (see `MedShieldLib.export.folder`); returns the folder.

        Raises:
            InputError: if the folder cannot be written, or holds results already and `force` is False.
        """
        from MedShieldLib.export.folder import save_result

        return save_result(self, Path(folder), force=force)
