"""A hardened copy: how it is trained, what its file may say, and that it is a target like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchio")

from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.control import Control
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.jobs import HardenJob
from MedShieldLib.shield import Shield
from MedShieldLib.shifts import none
from MedShieldLib.targets import Trainable, description, hardened, load_target
from MedShieldLib.training import copies, hardening
from MedShieldLib.versions import LowPass, WaveletShrinkage
from MedShieldLib.volume import Volume

Heads = list[tuple[str, Volume]]

FAMILY = (LowPass(0.6), WaveletShrinkage(0.05))


class Tissue(torch.nn.Module):
    """Grey and white by the intensity of a sharpened voxel; its layer has two names, like those of `unet`."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpen = torch.nn.Conv3d(1, 1, 3, padding=1, padding_mode="replicate")
        self.body = torch.nn.Sequential(self.sharpen)
        self.centres = torch.nn.Parameter(torch.tensor([0.1, 0.5, 0.85]).reshape(1, 3, 1, 1, 1))
        kernel = torch.full((3, 3, 3), -1 / 26)
        kernel[1, 1, 1] = 2
        with torch.no_grad():
            self.sharpen.weight.copy_(kernel)
            self.sharpen.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -80 * (self.body(x) - self.centres) ** 2


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A TorchScript model and the JSON file that describes it."""
    torch.jit.trace(Tissue().eval(), torch.zeros(1, 1, 16, 16, 16)).save(str(tmp_path / "tissue.pt"))
    entries = {
        "model": "tissue.pt",
        "spacing_mm": [3.0, 3.0, 3.0],
        "structures": [
            {"value": 1, "name": "Grey", "color": [0, 1, 0]},
            {"value": 2, "name": "White", "color": [1, 1, 1]},
        ],
    }
    return written(tmp_path / "tissue.json", entries)


@pytest.fixture
def heads_folder(tmp_path: Path, small_heads: Heads) -> Path:
    folder = tmp_path / "heads"
    folder.mkdir()
    for n, (_, volume) in enumerate(small_heads[:2]):
        volume.write(folder / f"head{n}.nii.gz")
    return folder


@pytest.fixture
def harden(model: Path, heads_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs the job; returns the copy's JSON file."""

    def run(**chosen) -> Path:
        job = HardenJob(heads_folder, str(model), tmp_path / "copies" / "copy.json", tmp_path / "work", 3)
        replace(job, **chosen).run(Control())
        return replace(job, **chosen).out

    return run


def written(path: Path, entries: dict) -> Path:
    path.write_text(json.dumps(entries))
    return path


def trainable(path: Path) -> Trainable:
    return hardened.require_trainable(load_target(path))


def test_ten_iterations_are_enough_to_rise_and_fall_in(harden: Callable[..., Path]) -> None:
    """The schedule of the learning rate used to divide by the length of its rise, which was nothing then."""
    assert harden(iterations=10).exists()


def test_a_sample_is_a_function_of_its_number_and_no_two_are_alike(model: Path, small_heads: Heads) -> None:
    target, volumes = trainable(model), [volume for _, volume in small_heads[:2]]
    (x, change), (again, _), (other, _) = (copies.sample(target, volumes, seed) for seed in (1, 1, 2))
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert x.shape == change.start.shape == target.window(volumes[0]).shape
    assert float(x.min()) >= 0 and float(x.max()) <= 1


def test_a_pose_keeps_the_head_in_view_and_its_size_about(model: Path, small_heads: Heads) -> None:
    x = trainable(model).window(small_heads[0][1])
    bright = float((x > 0.6).sum())
    for seed in range(6):
        posed = copies._posed(x, np.random.default_rng(seed))
        assert not torch.equal(posed, x)
        assert 0.7 < float((posed > 0.6).sum()) / bright < 1.4


def test_a_turn_turns_cells_and_not_the_shares_of_unequal_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cube in a long box stays a cube of the same size, whichever way it is turned."""
    monkeypatch.setattr(copies, "_GROWTH", 0.0)
    monkeypatch.setattr(copies, "_MOVE", 0.0)
    monkeypatch.setattr(copies, "_TURN", 45.0)
    x = torch.zeros(1, 1, 24, 40, 72)
    x[..., 6:18, 14:26, 30:42] = 1
    for seed in range(4):
        posed = copies._posed(x, np.random.default_rng(seed))
        assert float(posed.sum()) == pytest.approx(12**3, rel=0.05)


def test_a_target_with_patches_is_shown_patches(model: Path, small_heads: Heads) -> None:
    entries = json.loads(model.read_text()) | {"patch_size": [16, 12, 400]}
    target = trainable(written(model, entries))
    volumes = [volume for _, volume in small_heads[:1]]
    whole = target.window(volumes[0]).shape[2:]
    x, _ = copies.sample(target, volumes, 4)
    assert tuple(x.shape[2:]) == (16, 12, whole[2])


def test_training_lowers_what_changes_of_new_samples_do(
    model: Path, small_heads: Heads, tmp_path: Path
) -> None:
    target, copy, before = (trainable(model) for _ in range(3))
    volumes = [volume for _, volume in small_heads]
    recipe = copies.Recipe(iterations=60, learning_rate=1e-2, steps=2, averaging=0.8)
    copies.harden(target, copy, volumes[:3], tmp_path, recipe)

    def costs(model: Trainable) -> float:
        drawn = [copies.sample(target, volumes[3:], 9000 + n) for n in range(6)]
        hard = [(x, replace(change, eps=hardening.EPS)) for x, change in drawn]
        return float(np.mean([copies.loss(target, model, one, recipe).item() for one in hard]))

    assert costs(copy) < 0.9 * costs(before)


def test_training_that_was_stopped_ends_as_if_it_had_not_been(
    model: Path, small_heads: Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_CHECKPOINT_EVERY", 2)
    volumes, recipe = [volume for _, volume in small_heads[:2]], copies.Recipe(iterations=5)
    target = trainable(model)
    whole = copies.harden(target, trainable(model), volumes, tmp_path / "whole", recipe)
    asked = iter(range(100))
    with pytest.raises(Cancelled):
        copies.harden(
            target,
            trainable(model),
            volumes,
            tmp_path / "parts",
            recipe,
            cancelled=lambda: next(asked) == 3,
        )
    resumed = copies.harden(target, trainable(model), volumes, tmp_path / "parts", recipe)
    for (name, weights), (_, again) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(weights, again), name


def test_the_target_itself_stays_as_it_is(model: Path, small_heads: Heads, tmp_path: Path) -> None:
    target, volume = trainable(model), small_heads[0][1]
    before = target.probabilities(volume)
    copy = trainable(model)
    copies.harden(target, copy, [volume], tmp_path, copies.Recipe(iterations=3, learning_rate=1e-2))
    assert np.array_equal(target.probabilities(volume), before)
    assert not np.array_equal(copy.probabilities(volume), before)


def test_a_copy_is_a_target_with_a_name_and_a_hash_of_its_own(
    model: Path, harden: Callable[..., Path], small_heads: Heads
) -> None:
    out, volume = harden(), small_heads[0][1]
    copy, target = load_target(out), load_target(model)
    assert copy.name == "tissue-hardened" and copy.sha256 != target.sha256
    assert copy.structures == target.structures
    assert not np.array_equal(copy.probabilities(volume), target.probabilities(volume))
    assert load_target(out).sha256 == copy.sha256
    assert load_target(harden(seed=5, force=True)).sha256 != copy.sha256


def test_a_copy_is_trained_on_from_where_it_was(
    model: Path, harden: Callable[..., Path], tmp_path: Path
) -> None:
    first = harden(iterations=20)
    again = {"iterations": 1, "seed": 5}
    on = harden(out=tmp_path / "copies" / "on.json", begin=str(first), **again)
    anew = harden(out=tmp_path / "copies" / "anew.json", **again)

    def away(path: Path) -> float:
        pairs = zip(trainable(path).network.parameters(), trainable(first).network.parameters(), strict=True)
        return sum(float((ours - theirs).abs().sum()) for ours, theirs in pairs)

    assert 0 < away(on) < 0.2 * away(anew)
    assert load_target(on).name == "tissue-hardened"


def test_what_is_no_copy_of_the_target_is_not_trained_on(harden: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'brain-tissue' is no copy of target 'tissue'"):
        harden(begin="brain-tissue")
    assert not (tmp_path / "work").exists()


def test_a_copy_can_be_moved_with_its_model(harden: Callable[..., Path], tmp_path: Path) -> None:
    sha256 = load_target(harden()).sha256
    moved = tmp_path / "elsewhere"
    (tmp_path / "copies").rename(tmp_path / "other")
    moved.mkdir()
    for name in ("tissue.json", "tissue.pt", "other"):
        (tmp_path / name).rename(moved / name)
    assert load_target(moved / "other" / "copy.json").sha256 == sha256


def test_a_copy_gives_a_second_opinion(
    model: Path, harden: Callable[..., Path], small_heads: Heads, tmp_path: Path
) -> None:
    target, copy = load_target(model), load_target(harden())
    calibration = calibrate(target, small_heads[2:], FAMILY, second=copy, augmentations=(none,), seed=1)
    calibration.save(tmp_path / "calibration.json")
    shield = Shield(target, Calibration.load(tmp_path / "calibration.json"), seed=2, second=copy)
    result = shield.check_and_segment(small_heads[0][1])
    assert result.second is not None and result.second.name == "tissue-hardened"


def test_the_question_about_foreign_code_is_that_of_the_copied_model(
    model: Path, harden: Callable[..., Path], tmp_path: Path
) -> None:
    asked = description.describe_foreign_code(harden())
    assert asked is not None and "tissue.pt" in asked
    built_in = written(tmp_path / "c.json", {"hardened": "deepbet-coarse", "weights": "c.safetensors"})
    assert description.describe_foreign_code(built_in) is None


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"hardened": "tissue.json"}, "has no entry 'weights'; it needs hardened and weights"),
        ({"hardened": 3, "weights": "w"}, "'hardened' must be a text"),
        ({"hardened": "tissue.json", "weights": "../w"}, "'weights' must be the name of a file"),
        ({"hardened": "tissue.json", "weights": "w", "speed": 1}, "unknown entry 'speed'"),
        ({"hardened": "again.json", "weights": "w"}, "is a copy of a copy"),
        ({"hardened": "absent.json", "weights": "w"}, "cannot be read"),
        ({"hardened": "tissue.json", "weights": "absent"}, "does not hold weights for target 'tissue'"),
        ({"hardened": "tissue.json", "weights": "tissue.pt"}, "does not hold weights for target 'tissue'"),
        ({"hardened": "nobody", "weights": "w"}, "There is no target 'nobody'"),
    ],
)
def test_a_wrong_description_gets_one_sentence(
    model: Path, tmp_path: Path, entries: dict, sentence: str
) -> None:
    path = written(tmp_path / "again.json", entries)
    with pytest.raises(InputError, match=sentence):
        load_target(path)


@pytest.mark.parametrize("change", ["name", "shape"])
def test_weights_of_another_network_are_refused(harden: Callable[..., Path], change: str) -> None:
    from safetensors.torch import load_file, save_file

    out = harden()
    weights = load_file(hardened.weights_beside(out))
    name = next(iter(weights))
    x = weights.pop(name)
    weights[name if change == "shape" else "other"] = x.flatten()[:1].clone() if change == "shape" else x
    save_file(weights, hardened.weights_beside(out))
    with pytest.raises(InputError, match="does not hold weights"):
        load_target(out)


def test_what_has_no_weights_or_no_gradients_cannot_be_hardened(
    small_target, model: Path, tmp_path: Path
) -> None:
    frozen = torch.jit.freeze(torch.jit.load(str(tmp_path / "tissue.pt")).eval())
    frozen.save(str(tmp_path / "tissue.pt"))
    for target in (small_target, load_target(model)):
        with pytest.raises(InputError, match="no weights that can be trained on"):
            hardened.require_trainable(target)


def test_nothing_of_the_users_is_replaced_unasked(harden: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "copy.safetensors").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        harden()
    assert (folder / "copy.safetensors").read_text() == "mine"
    with pytest.raises(InputError, match=r"needs one of these endings: \.json"):
        harden(out=folder / "copy.pt")


def test_a_cancelled_job_leaves_checkpoints_alone(model: Path, heads_folder: Path, tmp_path: Path) -> None:
    control = Control(lambda fraction, step: control.cancel() if step.startswith("iteration 2") else None)
    job = HardenJob(heads_folder, str(model), tmp_path / "copies" / "copy.json", tmp_path / "work", 9)
    with pytest.raises(Cancelled):
        job.run(control)
    assert not any((tmp_path / "copies").iterdir())
