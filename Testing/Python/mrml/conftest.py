"""A scene of its own for every test, and a real result to bring into it."""

from __future__ import annotations

from collections.abc import Callable

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

slicer = pytest.importorskip("slicer", reason="needs slicer-core")
vtk = pytest.importorskip("vtk")

STRUCTURES = (
    Structure(1, "CSF", (0.25, 0.55, 0.95)),
    Structure(2, "Grey matter", (0.35, 0.75, 0.35)),
    Structure(3, "White matter", (0.95, 0.85, 0.35)),
)


@pytest.fixture
def application():
    """Application logic over a fresh scene with the default colours and orientations."""
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkMRMLApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    colors = slicer.vtkSlicerColorLogic()
    colors.SetMRMLApplicationLogic(logic)
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    logic.layouts = slicer.vtkMRMLLayoutLogic()
    logic.layouts.SetMRMLScene(scene)
    logic.colors = colors
    return logic


@pytest.fixture
def scene(application):
    return application.GetMRMLScene()


@pytest.fixture(scope="session")
def tissue(mni_4mm: Volume) -> Segmentation:
    """The tissues of the 4 mm MNI152 head by intensity: dark, middle, bright."""
    labels = np.digitize(mni_4mm.voxels, [0.1, 0.45, 0.72]).astype(np.uint8)
    return Segmentation(mni_4mm.with_voxels(labels), STRUCTURES)


@pytest.fixture(scope="session")
def make_result(mni_4mm: Volume, tissue: Segmentation) -> Callable[..., CheckResult]:
    """A result on a real head, whose segmentations differ in a known block unless the verdict is clean."""

    def make(verdict: Verdict = Verdict.SUSPECTED_ATTACK) -> CheckResult:
        defended = tissue
        if verdict is not Verdict.CLEAN:
            changed = tissue.labels.copy()
            changed[20:26, 30:36, 18:30] = 3
            defended = Segmentation(tissue.volume.with_voxels(changed), STRUCTURES)
        frequency = np.linspace(0.01, 0.12, 20)
        power = 6 - 30 * frequency
        smooth = mni_4mm.with_voxels(mni_4mm.voxels * np.float32(0.98))
        return CheckResult(
            volume=mni_4mm,
            verdict=verdict,
            p_attack=0.5 if verdict is Verdict.CLEAN else 0.004,
            p_novelty=0.3,
            alpha=0.05,
            evidence=(EvidenceItem("low pass", "instability", 3.2, 99.0, np.linspace(0.5, 3.0, 40)),),
            structures=compare(tissue, defended),
            original=tissue,
            defended=defended,
            reformed=smooth,
            heatmap=mni_4mm.with_voxels(mni_4mm.voxels),
            spectrum=SpectrumProfile(frequency, power, power - 0.4, power + 0.4),
            timings_s={"total": 1.0},
            target=TargetInfo("brain-tissue", "0" * 64),
            calibration=CalibrationInfo("test", "0" * 64, 20, 160),
            input_sha256="0" * 64,
            seed=7,
            version="0.1.0",
            notes=("A note.",),
        )

    return make
