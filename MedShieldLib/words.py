"""What a verdict and its p-values mean, in plain words: the same in the report and on the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass

from MedShieldLib.result import CheckResult, Verdict, can_alarm


@dataclass(frozen=True)
class Words:
    """A verdict for the reader: what was found, what to do, and whose colours and sign it wears."""

    title: str
    meaning: str
    advice: str
    look: Verdict


VERDICT_WORDS = {
    Verdict.CLEAN: Words(
        "No sign of tampering",
        "The model's answer is as stable on this scan as on clean scans.",
        "The defended segmentation is the original one, unchanged.",
        Verdict.CLEAN,
    ),
    Verdict.OUT_OF_DISTRIBUTION: Words(
        "Unlike the scans that MedShield was calibrated on",
        "There is no sign of tampering, but the scan differs from the calibration scans: another scanner, "
        "contrast, resolution or image quality, for instance.",
        "The model may be unreliable here. Check both segmentations against the anatomy.",
        Verdict.OUT_OF_DISTRIBUTION,
    ),
    Verdict.SUSPECTED_ATTACK: Words(
        "Suspected tampering",
        "Hidden detail in this scan, which anatomy does not explain, changes what the model segments.",
        "Do not rely on the original segmentation. Review the defended one against the anatomy, and get the "
        "scan from its source again.",
        Verdict.SUSPECTED_ATTACK,
    ),
}
# Clean by number alone: no scan at all could have raised an alarm, which must not look like a good sign.
CANNOT_ALARM = Words(
    "The calibration is too small: no scan can be called suspicious",
    "It holds too few clean scores for this alarm rate, so nothing is known about tampering with this scan.",
    "Calibrate on more volumes. The defended segmentation is the original one, unchanged.",
    Verdict.OUT_OF_DISTRIBUTION,
)


def words_of(verdict: Verdict, alpha: float, n_scores: int) -> Words:
    """The words for a verdict at the alarm rate `alpha`, under a calibration of `n_scores` clean scores."""
    clean = verdict is Verdict.CLEAN
    return CANNOT_ALARM if clean and not can_alarm(alpha, n_scores) else VERDICT_WORDS[verdict]


def words_for(result: CheckResult) -> Words:
    """The words for the outcome of a check."""
    return words_of(result.verdict, result.alpha, result.calibration.n_scores)


def p_sentences(result: CheckResult) -> tuple[str, str]:
    """What the two p-values mean, for tampering and for novelty, one sentence each."""
    endings = (
        (result.p_attack, "make the model's answer at least as unstable as this one"),
        (result.p_novelty, "look at least as unusual as this one"),
    )
    return tuple(_p_sentence(p, ending) for p, ending in endings)  # type: ignore[return-value]


def _p_sentence(p: float, ending: str) -> str:
    if math.isnan(p):
        return "There is no p-value for this check."
    share = f"About {100 * p:.0f} in 100"
    if p < 0.01:
        share = "Fewer than 1 in 100"
    elif p >= 0.995:
        share = "Nearly all"
    return f"{share} clean scans like those of the calibration {ending}."
