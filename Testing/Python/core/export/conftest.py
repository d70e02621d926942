"""A check of the MNI152 head at 4 mm, as the shield would hand it over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.agreement import compare
from MedShieldLib.result import (
    CalibrationInfo,
    CheckResult,
    EvidenceItem,
    SpectrumProfile,
    TargetInfo,
    Verdict,
)
from MedShieldLib.volume import Segmentation, Structure, Volume

STRUCTURES = (
    Structure(1, "Grey matter", (0.35, 0.75, 0.35)),
    Structure(2, "White matter", (0.95, 0.85, 0.35)),
)
P_VALUES = {
    Verdict.CLEAN: (0.48, 0.61),
    Verdict.OUT_OF_DISTRIBUTION: (0.21, 0.0042),
    Verdict.SUSPECTED_ATTACK: (0.0042, 0.34),
}


@pytest.fixture(scope="session")
def tissue(mni_4mm: Volume) -> Segmentation:
    """Grey and white matter of the head, from nilearn's maps."""
    datasets = pytest.importorskip("nilearn.datasets", reason="needs nilearn for the tissue maps")
    maps = (datasets.load_mni152_gm_template(resolution=4), datasets.load_mni152_wm_template(resolution=4))
    grey, white = (image.get_fdata(dtype=np.float32).T for image in maps)
    labels = np.where(white > np.maximum(grey, 0.3), 2, np.where(grey > 0.3, 1, 0)).astype(np.uint8)
    return Segmentation(mni_4mm.with_voxels(labels), STRUCTURES)


@pytest.fixture(scope="session")
def make_result(mni_4mm: Volume, tissue: Segmentation) -> Callable[[Verdict], CheckResult]:
    """Results of each verdict; in the attacked one, white matter is lost in an upper corner of the head."""

    def make(verdict: Verdict) -> CheckResult:
        wrong = tissue.labels.copy()
        wrong[24:34, 20:40, 28:] = 0
        original = Segmentation(mni_4mm.with_voxels(wrong), STRUCTURES) if verdict.exit_code else tissue
        heat = (original.labels != tissue.labels).astype(np.float32)
        p_attack, p_novelty = P_VALUES[verdict]
        return CheckResult(
            volume=replace(mni_4mm, source=Path("/scans/MNI152 T1.nii.gz")),
            verdict=verdict,
            p_attack=p_attack,
            p_novelty=p_novelty,
            alpha=0.05,
            evidence=_evidence(verdict),
            structures=compare(original, tissue),
            original=original,
            defended=tissue,
            reformed=mni_4mm.with_voxels(mni_4mm.voxels * np.float32(0.5)),
            heatmap=mni_4mm.with_voxels(heat),
            spectrum=_spectrum(),
            timings_s={"target": 1.25, "total": 2.5},
            target=TargetInfo("brain-tissue", "ab" * 32),
            calibration=CalibrationInfo("brain-tissue, T1", "cd" * 32, 13, 240),
            input_sha256="ef" * 32,
            seed=42,
            version="0.1.0",
            notes=("The calibration holds 13 subjects.",),
        )

    return make


@pytest.fixture(scope="session")
def attacked(make_result: Callable[[Verdict], CheckResult]) -> CheckResult:
    return make_result(Verdict.SUSPECTED_ATTACK)


def _evidence(verdict: Verdict) -> tuple[EvidenceItem, ...]:
    clean = np.sort(np.random.default_rng(0).gamma(4, 0.01, 240))
    high = float(2 * clean[-1])
    instability = high if verdict is Verdict.SUSPECTED_ATTACK else float(clean[120])
    novelty = high if verdict is Verdict.OUT_OF_DISTRIBUTION else float(clean[60])
    return (
        EvidenceItem(
            "low_pass", "instability", instability, 100 * float((clean < instability).mean()), clean
        ),
        EvidenceItem("finest wavelet", "novelty", novelty, 100 * float((clean < novelty).mean()), clean),
        EvidenceItem("unknown", "novelty", float("nan"), float("nan"), np.array([])),
    )


def _spectrum() -> SpectrumProfile:
    frequency = np.linspace(0, 0.125, 32)
    power = 9 - 20 * frequency
    return SpectrumProfile(frequency, power, power - 0.5, power + 0.5)
