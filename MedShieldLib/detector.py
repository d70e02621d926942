"""The detector: evidence from a target's answers and from the image, turned into p-values and a verdict.

Evidence of tampering is *instability*: how much the answer changes when the volume is seen through versions
that leave the anatomy alone. Evidence of an unusual scan is *novelty*. Nothing here ever saw an attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from MedShieldLib import converter, slabs
from MedShieldLib.result import Verdict
from MedShieldLib.targets.base import Target
from MedShieldLib.volume import Volume

# Shells of the radial profile (cycles/mm), the same for all volumes so that they can be compared.
PROFILE_EDGES = np.linspace(0.0, 0.5, 41)
# The coarser bands of the novelty features; finer ones would describe single volumes, not protocols.
_BANDS = np.array([0.01, 0.04, 0.08, 0.13, 0.19, 0.25])
# Below this soft volume (in cells) a structure is absent from both answers and there is nothing to compare.
_ABSENT_CELLS = 8.0
_SMALLEST_SCORE = 1e-6


def disagreement(answer: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - soft Dice per structure, (S,) in [0, 1], of two answers (S + 1, K', J', I'); 0 where both lack it.

    Soft Dice with min() as the intersection, unlike the product form, is 1 only for equal probabilities; and
    as 2 min(p, q) = p + q - |p - q|, what it lacks is sum|p - q| / sum(p + q).
    """

    def sums(rows: slice) -> list[np.ndarray]:
        p, q = answer[1:, rows], other[1:, rows]
        return [x.reshape(len(x), -1).sum(1) for x in (np.abs(p - q), p + q)]

    of_slabs = np.array(slabs.each(answer, sums, axis=1), dtype=np.float64)  # (slabs, 2, S)
    apart, total = of_slabs[:, 0].sum(0), of_slabs[:, 1].sum(0)
    return np.where(total > _ABSENT_CELLS, apart / np.maximum(total, _ABSENT_CELLS), 0.0)


def novelty_features(
    spectrum: converter.Spectrum, volume: Volume, answer: np.ndarray, target: Target
) -> dict[str, float]:
    """Numbers that tell protocols and contrasts apart: spectrum, histogram, and what the target sees.

    Spectral features do not detect attacks (a scanner moves them more); they describe the scan.
    """
    power = converter.radial_profile(spectrum, _BANDS)
    bands = zip(_BANDS[1:], _BANDS[2:], power[1:], strict=False)
    features = {f"power {a:.2f}-{b:.2f}/mm": value - power[0] for a, b, value in bands}
    low, high = converter.intensity_range(volume.voxels)
    sample = (volume.voxels[::2, ::2, ::2].astype(np.float32) - low) / (high - low)
    bright = sample[sample > 0.1]
    features["bright median"] = float(np.median(bright)) if bright.size else 0.0
    features["bright spread"] = float(np.subtract(*np.percentile(bright, [75, 25]))) if bright.size else 0.0
    cell_ml = volume.voxels.size * float(np.prod(volume.spacing)) / answer[0].size / 1000
    sizes = np.array([float(p.sum(dtype=np.float64)) * cell_ml for p in answer[1:]])
    features["log ml of all"] = float(np.log(sizes.sum() + 10))
    for structure, share in zip(target.structures[1:], sizes[1:] / (sizes.sum() + 10), strict=True):
        features[f"share {structure.name}"] = float(share)
    inside = 1 - answer[0]
    best = answer[1:].max(axis=0)
    sure, all_inside = (inside * best).sum(dtype=np.float64), (inside**2).sum(dtype=np.float64)
    features["sureness"] = float(sure / max(all_inside, 1.0))
    return features


@dataclass(frozen=True)
class Normaliser:
    """The scale of clean evidence: what `instability` and `novelty` are measured against.

    Attributes:
        benign: (V, S) mean disagreement per version and structure on clean volumes.
        centre: (F,) mean novelty features.
        whitening: (F, F) inverse square root of their shrunk covariance.
    """

    benign: np.ndarray
    centre: np.ndarray
    whitening: np.ndarray

    # Floors keep a version that never moves a structure from turning rounding errors into evidence.
    _FLOOR = 0.005
    _SHRINKAGE = 0.2

    @classmethod
    def fit(cls, disagreements: np.ndarray, features: np.ndarray) -> Normaliser:
        """From clean volumes: (N, V, S) disagreements and (N, F) features."""
        centre, spread = features.mean(0), features.std(0) + 1e-3
        unit = (features - centre) / spread
        covariance = unit.T @ unit / len(unit)
        covariance = (1 - cls._SHRINKAGE) * covariance + cls._SHRINKAGE * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        whitening = (vectors / np.sqrt(values)) @ vectors.T / spread
        return cls(np.maximum(disagreements.mean(0), cls._FLOOR), centre, whitening)

    def per_version(self, disagreements: np.ndarray) -> np.ndarray:
        """(..., V): disagreement relative to its benign mean, averaged over structures; 1 is ordinary."""
        return (disagreements / self.benign).mean(-1)

    def per_structure(self, disagreements: np.ndarray) -> np.ndarray:
        """(..., S): the same, averaged over versions."""
        return (disagreements / self.benign).mean(-2)

    def instability(self, disagreements: np.ndarray) -> np.ndarray:
        """(...): the quadratic mean over structures.

        A small structure that vanishes counts as much as a large one, and as its ratio is large it cannot
        hide among quiet ones; the plain maximum would do that too, but is noisier on clean volumes.
        """
        return np.sqrt((self.per_structure(disagreements) ** 2).mean(-1))

    def novelty(self, features: np.ndarray) -> np.ndarray:
        """(...): Mahalanobis distance of the features from the clean ones."""
        return np.linalg.norm((features - self.centre) @ self.whitening.T, axis=-1)


def p_value(score: float, clean: np.ndarray, subjects: Sequence[str] = ()) -> float:
    """The p-value of a score under clean scores; the larger of two where it is known whose scores they are.

    The conformal one is the share of clean scores at least as large, the score itself counted among them; if
    `score` comes from the same protocol as `clean`, P(p <= alpha) <= alpha (Vovk et al. 2005). But several
    scores of one subject are not independent, and a new subject differs from all of them. So with three
    subjects or more the score must also be unusual for a new subject, see `predictive_p_value`.
    """
    conformal = float((1 + np.count_nonzero(clean >= score)) / (1 + len(clean)))
    return max(conformal, predictive_p_value(score, clean, subjects)) if len(set(subjects)) > 2 else conformal


def predictive_p_value(score: float, clean: np.ndarray, subjects: Sequence[str]) -> float:
    """How far a score lies in the upper tail for a new subject: Student's t of the log scores.

    The variance is that between the subjects' means plus the mean one within subjects.
    """
    logs = np.log(np.maximum(clean, _SMALLEST_SCORE))
    groups = [logs[np.array(subjects) == name] for name in dict.fromkeys(subjects)]
    means = np.array([group.mean() for group in groups])
    variance = means.var(ddof=1) + np.mean([group.var() for group in groups])
    spread = np.sqrt(variance * (1 + 1 / len(groups))) + 1e-9
    distance = (np.log(max(score, _SMALLEST_SCORE)) - means.mean()) / spread
    return float(stats.t.sf(distance, len(groups) - 1))


def verdict(p_attack: float, p_novelty: float, alpha: float) -> Verdict:
    """An attack outweighs novelty: an attacked scan may look unusual as well."""
    if p_attack <= alpha:
        return Verdict.SUSPECTED_ATTACK
    return Verdict.OUT_OF_DISTRIBUTION if p_novelty <= alpha else Verdict.CLEAN
