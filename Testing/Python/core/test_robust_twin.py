"""The robust twin that ships: the same answers as the reference target's, but harder to change."""

from __future__ import annotations

import pytest

pytest.importorskip("nilearn")

from MedShieldLib import Shield, detector, second_opinion
from MedShieldLib.attacks import load_attack
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.volume import Volume


@pytest.fixture(scope="module")
def target() -> DifferentiableTarget:
    return load_target("brain-tissue")


@pytest.fixture(scope="module")
def twin() -> DifferentiableTarget:
    return load_target("brain-tissue-robust")


def test_the_twin_agrees_with_the_target_and_has_its_own_name(target, twin, mni_2mm) -> None:
    assert twin.name == "brain-tissue-robust" and twin.sha256 != target.sha256
    assert [s.name for s in twin.structures] == [s.name for s in target.structures]
    apart = second_opinion.contradictions(target, target.probabilities(mni_2mm), twin, mni_2mm, seed=1)
    assert apart.shape == (3, 2) and apart.max() < 0.2 and apart.mean() < 0.1


def test_one_step_of_an_attack_moves_the_twin_less(target, twin, mni_2mm) -> None:
    moved = []
    for model in (target, twin):
        attacked = load_attack("fgsm")(model, mni_2mm, 8 / 255, seed=1).volume
        moved.append(detector.disagreement(model.probabilities(mni_2mm), model.probabilities(attacked)))
    assert (moved[1] < moved[0]).all()


def test_an_attack_on_a_real_head_takes_less_from_the_twin_and_shows(target, twin, dev_data) -> None:
    """On MNI152, an average of many heads, an attack does little, whatever the model."""
    volume = Volume.read(dev_data / "volumes" / "nichart_Subj1_T1.nii.gz")
    attack = load_attack("pgd", steps=6)
    found = {model: attack(model, volume, 8 / 255, seed=1) for model in (target, twin)}
    assert found[twin].dice_drop < 0.8 * found[target].dice_drop
    before, after = (
        second_opinion.contradictions(target, target.probabilities(v), twin, v, seed=1).mean()
        for v in (volume, found[target].volume)
    )
    assert after > 3 * before


def test_the_shipped_calibration_knows_the_twin(target, twin, mni_2mm) -> None:
    shield = Shield.for_target(target, seed=1, second=twin)
    result = shield.check_and_segment(mni_2mm)
    assert result.second is not None and result.second.sha256 == twin.sha256
    assert "second opinion" in {item.name for item in result.evidence}
