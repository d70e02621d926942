"""What a verdict and its p-values mean, in plain words: the same in the report and on the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass

from MedShieldLib.result import CheckResult, Verdict


@dataclass(frozen=True)
class Words:
    """A verdict for the reader: what was found, and what to do."""

    title: str
    meaning: str
    advice: str


VERDICT_WORDS = {
    Verdict.CLEAN: Words(
        "No sign of tampering",
        "The model's answer is as stable on this scan as on clean scans.",
        "The defended segmentation is the original one, unchanged.",
    ),
    Verdict.OUT_OF_DISTRIBUTION: Words(
        "Unlike the scans that MedShield was calibrated on",
        "There is no sign of tampering, but the scan differs from the calibration scans: another scanner, "
        "contrast, resolution or image quality, for instance.",
        "The model may be unreliable here. Check both segmentations against the anatomy.",
    ),
    Verdict.SUSPECTED_ATTACK: Words(
        "Suspected tampering",
        "Hidden detail in this scan, which anatomy does not explain, changes what the model segments.",
        "Do not rely on the original segmentation. Review the defended one against the anatomy, and get the "
        "scan from its source again.",
    ),
}


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
