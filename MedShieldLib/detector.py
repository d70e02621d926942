"""The detector: evidence from a target's answers and from the image, turned into p-values and a verdict.

Evidence of tampering is *instability*: how far the answer to the volume itself is from those to versions that
leave the anatomy alone, beside how far these are from each other, and whether a small step moves it as far as
the opposite one. A noisy scan scatters all answers; an attack is made for the volume itself, and leaves its
answer alone outside. Evidence of an unusual scan is *novelty*.
Nothing here is fitted to an attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from MedShieldLib import sampling, slabs
from MedShieldLib.fusion import Scores
from MedShieldLib.result import Verdict
from MedShieldLib.symmetry import Symmetry
from MedShieldLib.targets.base import Target
from MedShieldLib.versions import Source

# Shells of the radial profile (cycles/mm), the same for all volumes so that they can be compared.
PROFILE_EDGES = np.linspace(0.0, 0.5, 41)
# The coarser bands of the novelty features, as edges in shells of the profile; finer ones would describe
# single volumes, not protocols.
_BANDS = (1, 3, 6, 10, 15, 20)
# Below this soft volume (in cells) a structure is absent from both answers and there is nothing to compare.
_ABSENT_CELLS = 8.0
_SMALLEST_SCORE = 1e-6
# With fewer subjects nothing is known of how they differ.
_FEWEST_SUBJECTS = 3
# How far log attack scores of clean subjects usually differ: root mean square of three calibrations of nine
# subjects and more (.090, .116, .153), and as how many subjects that counts; see docs/method.md.
_USUAL_SPREAD, _USUAL_SUBJECTS = 0.12, 4
# Scores that fewer clean volumes reach are not explained by chance alone, whatever the alarm rate.
_RARE = 0.05
# Versions that agree better than this share of their benign dispersion prove no more.
LEAST_SPREAD = 0.5
# Instability grows by this power with the distance that is not explained by the versions' own: an attack that
# scatters them as well must not pass for a noisy scan.
UNEXPLAINED = 0.3
# How far answers are from each other is measured on about so many cells, evenly spaced.
_SAMPLED_CELLS = 2**22
# So many tell how bright a structure is.
_BRIGHTNESS_CELLS = 2**18


def disagreement(answer: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - soft Dice per structure, (S,) in [0, 1], of two answers (S + 1, K', J', I'); 0 where both lack it.

    Soft Dice with min() as the intersection, unlike the product form, is 1 only for equal probabilities; and
    as 2 min(p, q) = p + q - |p - q|, what it lacks is sum|p - q| / sum(p + q).
    """
    return relative(_apart(answer, other), cells(answer) + cells(other))


def _apart(answer: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(S,): sum|p - q|."""
    apart = slabs.each(answer, lambda rows: of_structures(np.abs(answer[1:, rows] - other[1:, rows])), axis=1)
    return np.sum(apart, axis=0)


def cells(answer: np.ndarray) -> np.ndarray:
    """(S,) float64: the soft volume of each structure of an answer (S + 1, K', J', I'), in cells."""
    return np.sum(slabs.each(answer, lambda rows: of_structures(answer[1:, rows]), axis=1), axis=0)


def of_structures(x: np.ndarray) -> np.ndarray:
    """(S,) float64: sums over some rows (S, k, J', I')."""
    return x.reshape(len(x), -1).sum(1).astype(np.float64)


def relative(apart: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`disagreement` from sum|p - q| and sum(p + q), both (S,)."""
    return np.where(total > _ABSENT_CELLS, apart / np.maximum(total, _ABSENT_CELLS), 0.0)


def sample(answer: np.ndarray) -> np.ndarray:
    """Evenly spaced cells of an answer (C, K', J', I'), all of them where they are few; a copy."""
    step = sampling.step(answer[0].size, _SAMPLED_CELLS)
    chosen = answer[:, ::step, ::step, ::step]
    copy = np.empty(chosen.shape, chosen.dtype)

    def take(rows: slice) -> None:
        copy[:, rows] = chosen[:, rows]

    slabs.each(copy, take, axis=1)
    return copy


def pairs(versions: int) -> list[tuple[int, int]]:
    """The pairs of versions, in the order of `dispersions`."""
    return list(combinations(range(versions), 2))


def dispersions(samples: Sequence[np.ndarray]) -> np.ndarray:
    """(P, S): disagreement of the answers to every two versions, from the `sample` of each; see `pairs`."""
    sizes = [cells(answer) for answer in samples]

    def of_pair(a: int, b: int) -> np.ndarray:
        return relative(_apart(samples[a], samples[b]), sizes[a] + sizes[b])

    found = [of_pair(a, b) for a, b in pairs(len(samples))]
    return np.array(found).reshape(len(found), len(samples[0]) - 1)


def novelty_features(
    profile: np.ndarray, source: Source, answer: np.ndarray, target: Target
) -> dict[str, float]:
    """Numbers that tell protocols and contrasts apart: spectrum, histogram, and what the target sees.

    Spectral features do not detect attacks (a scanner moves them more); they describe the scan.

    Args:
        profile: log10 power per shell of `PROFILE_EDGES`.
        source: the scan.
        answer: (S + 1, K', J', I') of the target.
        target: for the names of its structures.
    """
    powers = [_mean_of_known(profile[a:b]) for a, b in zip(_BANDS, _BANDS[1:], strict=False)]
    features = {}
    for first, end, power in zip(_BANDS[1:], _BANDS[2:], powers[1:], strict=False):
        features[f"power {PROFILE_EDGES[first]:.3f}-{PROFILE_EDGES[end]:.3f}/mm"] = power - powers[0]
    volume, (low, _) = source.volume, source.range
    shares = (volume.voxels[::2, ::2, ::2].astype(np.float32) - low) / source.width
    bright = shares[shares > 0.1]
    quarter, half, most = np.percentile(bright, [25, 50, 75]) if bright.size else (0.0, 0.0, 0.0)
    features["bright median"], features["bright spread"] = float(half), float(most - quarter)
    chosen = sample(answer)
    cell_ml = volume.voxels.size * float(np.prod(volume.spacing)) / chosen[0].size / 1000
    in_cells, sure, all_inside = _sureness_sums(chosen)
    sizes = in_cells * cell_ml
    features["log ml of all"] = float(np.log(sizes.sum() + 10))
    for structure, share in zip(target.structures[1:], sizes[1:] / (sizes.sum() + 10), strict=True):
        features[f"share {structure.name}"] = float(share)
    features["sureness"] = float(sure / max(all_inside, 1.0))
    for structure, level in zip(target.structures[1:], _brightness(source, answer)[1:], strict=True):
        features[f"brightness {structure.name}"] = float(level)
    return features


def _brightness(source: Source, answer: np.ndarray) -> np.ndarray:
    """(S,): which structures are brighter than which, as a vector of length 1 about 0; 0 for a single one.

    A network that knows one contrast draws another one steadily, but seldom with the same brightness inside.
    """
    step = sampling.step(answer[0].size, _BRIGHTNESS_CELLS)
    at = [np.arange(min(step // 2, size - 1), size, step) for size in answer.shape[1:]]
    weights = np.stack([structure[np.ix_(*at)].ravel() for structure in answer[1:]]).astype(np.float64)
    voxels = source.grid.nearest_voxels(source.volume.voxels, at).astype(np.float64).ravel()
    there = weights.sum(1) > _ABSENT_CELLS
    levels = np.zeros(len(weights))
    levels[there] = weights[there] @ voxels / weights[there].sum(1)
    levels[there] -= levels[there].mean() if there.any() else 0
    return levels / max(float(np.linalg.norm(levels)), _SMALLEST_SCORE)


def _mean_of_known(values: np.ndarray) -> float:
    """The mean without NaN; 0, which is no usual power, where there is nothing else."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def _sureness_sums(answer: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Cells per structure (S,), and what is inside of any: sum of inside x best structure, of inside^2."""

    def sums(rows: slice) -> np.ndarray:
        p = answer[:, rows]
        inside, best = 1 - p[0], p[1:].max(axis=0)
        cells = p[1:].reshape(len(p) - 1, -1).sum(1)
        return np.append(cells, [(inside * best).sum(), (inside * inside).sum()])

    total = np.array(slabs.each(answer, sums, axis=1), dtype=np.float64).sum(0)
    return total[:-2], float(total[-2]), float(total[-1])


@dataclass(frozen=True)
class Normaliser:
    """The scale of clean evidence: what `instability` and `novelty` are measured against.

    Attributes:
        benign: (V, S) mean disagreement per version and structure on clean volumes.
        benign_dispersion: (P, S) the same per pair of versions.
        centre: (F,) mean novelty features.
        whitening: (F, F) inverse square root of their shrunk covariance.
        nudges: how many of the versions, the last ones, are nudges: two, or none.
        symmetry: the scale of what two opposite nudges do, the last versions; None where the family has none.
    """

    benign: np.ndarray
    benign_dispersion: np.ndarray
    centre: np.ndarray
    whitening: np.ndarray
    nudges: int = 0
    symmetry: Symmetry | None = None

    # Floors keep a version that never moves a structure from turning rounding errors into evidence.
    _FLOOR = 0.005
    _SHRINKAGE = 0.2

    @classmethod
    def fit(
        cls,
        disagreements: np.ndarray,
        dispersions: np.ndarray,
        features: np.ndarray,
        nudges: int = 0,
    ) -> Normaliser:
        """From clean volumes: (N, V, S) disagreements, (N, P, S) dispersions and (N, F) features.

        Of the V versions the last ones may be `nudges`, see `versions.nudges`; P pairs are of the others.
        """
        centre, spread = features.mean(0), features.std(0) + 1e-3
        unit = (features - centre) / spread
        covariance = unit.T @ unit / len(unit)
        covariance = (1 - cls._SHRINKAGE) * covariance + cls._SHRINKAGE * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        whitening = (vectors / np.sqrt(values)) @ vectors.T / spread
        floors = np.full((disagreements.shape[1], 1), cls._FLOOR)
        floors[len(floors) - nudges :] = Symmetry.LEAST_BENIGN  # they are meant to do next to nothing
        benign = np.maximum(disagreements.mean(0), floors)
        benign_dispersion = np.maximum(dispersions.mean(0), cls._FLOOR)
        scale = cls(benign, benign_dispersion, centre, whitening, nudges)
        if not nudges:
            return scale
        alone = scale.standing_out(disagreements, dispersions)
        return replace(scale, symmetry=Symmetry.fit(scale._nudged(disagreements), alone))

    def per_version(self, disagreements: np.ndarray) -> np.ndarray:
        """(..., V): disagreement relative to its benign mean, averaged over structures; 1 is ordinary."""
        return (disagreements / self.benign).mean(-1)

    def spread(self, dispersions: np.ndarray) -> np.ndarray:
        """(..., S): dispersion relative to its benign mean, averaged over pairs; 1 is ordinary."""
        if not dispersions.shape[-2]:  # a single version: nothing to compare
            return np.ones((*dispersions.shape[:-2], dispersions.shape[-1]))
        return (dispersions / self.benign_dispersion).mean(-2)

    def instability(self, disagreements: np.ndarray, dispersions: np.ndarray) -> np.ndarray:
        """(...): how far the answer stands out among those to versions, or how lopsided it is to nudges.

        The larger one counts: whichever is further out of its clean values, see `fusion.Units`.
        """
        alone = self.standing_out(disagreements, dispersions)
        if self.symmetry is None:
            return alone
        return np.maximum(alone, self.symmetry.score(self._nudged(disagreements)))

    def asymmetry(self, disagreements: np.ndarray) -> np.ndarray | None:
        """(...): see `Symmetry.asymmetry`; None where the family has no nudges."""
        return None if self.symmetry is None else self.symmetry.asymmetry(self._nudged(disagreements))

    def _nudged(self, disagreements: np.ndarray) -> np.ndarray:
        """(..., 2, S): those with the nudges, relative to their benign means."""
        return (disagreements / self.benign)[..., -2:, :]

    def standing_out(self, disagreements: np.ndarray, dispersions: np.ndarray) -> np.ndarray:
        """(...): how far the answer stands out among those to versions, see `standing_out`."""
        return standing_out(disagreements / self.benign, self.spread(dispersions), self.nudges)

    def novelty(self, features: np.ndarray) -> np.ndarray:
        """(...): Mahalanobis distance of the features from the clean ones."""
        return np.linalg.norm((features - self.centre) @ self.whitening.T, axis=-1)


def standing_out(relative: Scores, spread: Scores, nudges: int) -> Scores:
    """(...): how far an answer stands out among those to versions; quadratic mean over structures.

    A small structure that vanishes counts as much as a large one, and as its ratio is large it cannot hide
    among quiet ones; the plain maximum would do that too, but is noisier on clean volumes. Differentiable.

    Args:
        relative: (..., V, S) disagreements with the versions, relative to their mean on clean volumes.
        spread: (..., S) how far the answers to versions are from each other, see `Normaliser.spread`.
        nudges: how many of the versions, the last ones, are nudges. The nudge against adds fine detail, which
            undoes no attack: where that moves an answer more than versions differ, half of it is spread too.
    """
    if nudges:
        spread = spread + (relative[..., -1, :] - spread).clip(min=0) / 2
    own = relative.mean(-2) ** (1 + UNEXPLAINED)
    return ((own / spread.clip(min=LEAST_SPREAD)) ** 2).mean(-1) ** 0.5


def p_value(
    score: float, clean: np.ndarray, subjects: Sequence[str] = (), usual_spread: float | None = None
) -> float:
    """The p-value of a score under clean scores; the larger of two where it is known whose scores they are.

    The conformal one is the share of clean scores at least as large, the score itself counted among them; if
    `score` comes from the same protocol as `clean`, P(p <= alpha) <= alpha (Vovk et al. 2005). But several
    scores of one subject are not independent, and a new subject differs from all of them. So with three
    subjects or more the score must also be unusual for a new subject, see `predictive_p_value`.
    """
    conformal = float((1 + np.count_nonzero(clean >= score)) / (1 + len(clean)))
    if len(set(subjects)) < _FEWEST_SUBJECTS:
        return conformal
    return max(conformal, predictive_p_value(score, clean, subjects, usual_spread))


def predictive_p_value(
    score: float, clean: np.ndarray, subjects: Sequence[str], usual_spread: float | None = None
) -> float:
    """How far a score lies in the upper tail for a new subject: Student's t of the log scores.

    The variance is that between the subjects' means plus the mean one within subjects. What a handful of
    subjects shows of the first is a matter of luck, so `usual_spread`, the standard deviation between
    subjects that scores of this kind usually have, counts beside it like that of `_USUAL_SUBJECTS` more
    subjects (the scaled inverse chi-squared prior of a normal variance, Gelman et al. 2013).
    """
    logs = np.log(np.maximum(clean, _SMALLEST_SCORE))
    groups = [logs[np.array(subjects) == name] for name in dict.fromkeys(subjects)]
    means = np.array([group.mean() for group in groups])
    known, between = len(groups) - 1, means.var(ddof=1)
    if usual_spread is not None:
        between = (known * between + _USUAL_SUBJECTS * usual_spread**2) / (known + _USUAL_SUBJECTS)
        known += _USUAL_SUBJECTS
    variance = between + np.mean([group.var() for group in groups])
    spread = np.sqrt(variance * (1 + 1 / len(groups))) + 1e-9
    distance = (np.log(max(score, _SMALLEST_SCORE)) - means.mean()) / spread
    return float(stats.t.sf(distance, known))


def p_attack(score: float, clean: np.ndarray, subjects: Sequence[str] = ()) -> float:
    """The `p_value` of an attack score, which is instability or in its units."""
    return p_value(score, clean, subjects, _USUAL_SPREAD)


def loudest_silent(alpha: float, clean: np.ndarray, subjects: Sequence[str] = ()) -> float:
    """The largest attack score that raises no alarm, by bisection of its p-value."""
    quiet, loud = 0.0, 1e4
    while loud - quiet > 1e-4 * max(loud, 1e-3):
        middle = (quiet + loud) / 2
        quiet, loud = (middle, loud) if p_attack(middle, clean, subjects) > alpha else (quiet, middle)
    return quiet


def unexplained(score: float, clean: np.ndarray) -> float:
    """The part of a score that lies beyond what all but one in twenty clean volumes reach, in [0, 1)."""
    return max(0.0, 1 - ordinary(clean) / max(score, _SMALLEST_SCORE))


def ordinary(clean: np.ndarray) -> float:
    """What all but one in twenty clean scores stay below."""
    return float(np.quantile(clean, 1 - _RARE))


def verdict(p_attack: float, p_novelty: float, alpha: float) -> Verdict:
    """An attack outweighs novelty: an attacked scan may look unusual as well."""
    if p_attack <= alpha:
        return Verdict.SUSPECTED_ATTACK
    return Verdict.OUT_OF_DISTRIBUTION if p_novelty <= alpha else Verdict.CLEAN
