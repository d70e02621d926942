"""Attacks by their text as a benchmark gets them ready: no parameter is dropped silently."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import preparation
from MedShieldLib.evaluation.defence import Setting
from MedShieldLib.evaluation.plan import KNOWING, expected_passes, is_adaptive
from MedShieldLib.evaluation.preparation import Preparation
from MedShieldLib.versions import Denoiser

_spec = importlib.util.spec_from_file_location("attack_toys", Path(__file__).with_name("attack_toys.py"))
toys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toys)

EPS = 8 / 255


@pytest.fixture
def ready(tmp_path, monkeypatch) -> Preparation:
    monkeypatch.setattr(preparation, "load_target", lambda name: toys.target_of(toys.Sharpening()))
    setting = Setting(toys.target_of(toys.Sharpening()), [("a", toys.head(12))], tmp_path)
    return Preparation(setting, setting)


def test_parameters_of_a_transferred_attack_are_those_of_its_search(ready):
    assert ready.attack("transfer:steps=7,restarts=2", EPS).attack.steps == 7
    with pytest.raises(InputError, match="no parameter 'queries'"):
        ready.attack("transfer:queries=7", EPS)


def test_universal_patterns_fitted_otherwise_are_kept_apart(ready, tmp_path):
    default, longer = (ready.attack(f"universal:epochs={n}", EPS).pattern for n in (1, 3))
    assert not default.equal(longer) and len(list(tmp_path.glob("universal-*"))) == 2
    assert ready.attack("universal:epochs=3", EPS).pattern.equal(longer)
    with pytest.raises(InputError, match="no parameter 'steps'"):
        ready.attack("universal:steps=3", EPS)


def test_joint_loss_is_swept_over_its_weight():
    swept = [text for text in KNOWING if text.startswith("adaptive-joint")]
    weights = {float(text.partition("weight=")[2] or 0.5) for text in swept}
    assert weights == {0.1, 0.25, 0.5, 1, 2}
    assert all(is_adaptive(text) and expected_passes(text) > 0 for text in swept)


def test_the_learned_reformer_is_calibrated_apart_from_the_shield(ready):
    learned, plain = (ready.defence(name).calibration for name in ("shield-learned", "shield"))
    assert any(isinstance(version, Denoiser) for version in learned.versions)
    assert not any(isinstance(version, Denoiser) for version in plain.versions)
    # Kept for the next run, each by itself.
    again = ready.defence("shield-learned").calibration
    assert again.sha256 == learned.sha256 != plain.sha256
