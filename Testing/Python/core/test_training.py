"""Training of the reference target, on the one head that every machine has. How good it gets is no test."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchio")
pytest.importorskip("nilearn")

from MedShieldLib.clean_rows import Rows  # noqa: E402
from MedShieldLib.errors import Cancelled, InputError  # noqa: E402
from MedShieldLib.recalibration import with_second_opinion  # noqa: E402
from MedShieldLib.targets.brain_tissue import WEIGHTS, build_network, network_of, target_of  # noqa: E402
from MedShieldLib.targets.network import NetworkTarget  # noqa: E402
from MedShieldLib.training import augment, consistency, hardening, precision, robust, validate  # noqa: E402
from MedShieldLib.training import calibrate as calibrate_script  # noqa: E402
from MedShieldLib.training.augment import sample  # noqa: E402
from MedShieldLib.training.calibrate import as_if_new, calibrate_shipped, with_opinion  # noqa: E402
from MedShieldLib.training.data import (  # noqa: E402
    CSF,
    GREY,
    WHITE,
    Subject,
    load_subjects,
    mni152,
    tissues_of_regions,
)
from MedShieldLib.training.train import Phase, Recipe, _hardened_sample, _of_hardened, train  # noqa: E402
from MedShieldLib.training.validate import cross_validate, left_out, score, table  # noqa: E402

SHORT = Recipe(
    phases=(
        Phase(3, 1e-3, False),
        Phase(2, 1e-3, True),
        Phase(2, 1e-3, True, 1.0),
        Phase(3, 1e-2, True, 3.0, hardened=2),
    ),
    measured_patches=1,
    checkpoint_every=1,
)


@pytest.fixture(scope="module")
def head() -> Subject:
    """The middle of MNI152: the network answers to it in a moment."""
    whole, middle = mni152(), (slice(20, 68), slice(30, 78), slice(24, 72))
    return replace(whole, image=whole.image[middle], labels=whole.labels[middle])


@pytest.fixture(autouse=True)
def small_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of a size that trains in a moment."""
    monkeypatch.setattr(augment, "PATCH", (32, 32, 32))
    monkeypatch.setattr(augment, "_BEFORE", (40, 40, 40))


def test_a_sample_is_a_function_of_its_head_and_number(head: Subject) -> None:
    (x, y), (again, _), (other, _) = sample(head, 3), sample(head, 3), sample(head, 4)
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert x.shape == y.shape == (1, 32, 32, 32) and float(x.min()) >= 0 and float(x.max()) <= 1
    assert set(y.unique().tolist()) <= {0, CSF, GREY, WHITE}


@pytest.mark.parametrize("stop", [5, 9])
def test_training_that_was_stopped_ends_as_if_it_had_not_been(
    head: Subject, tmp_path: Path, stop: int
) -> None:
    whole = train([head], tmp_path / "whole", SHORT)
    asked = iter(range(100))
    with pytest.raises(Cancelled):
        train([head], tmp_path / "parts", SHORT, cancelled=lambda: next(asked) == stop)
    resumed = train([head], tmp_path / "parts", SHORT)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_norms_are_measured_once_and_stay(head: Subject, tmp_path: Path) -> None:
    longer = train([head], tmp_path / "long", SHORT)
    shorter = train([head], tmp_path / "short", replace(SHORT, phases=SHORT.phases[:2]))
    statistics = [name for name in longer.state_dict() if "running" in name]
    assert statistics
    for name in statistics:
        assert torch.equal(longer.state_dict()[name], shorter.state_dict()[name]), name


def test_two_views_show_one_head_from_two_places(head: Subject) -> None:
    seen = [consistency.views(head, seed) for seed in range(12)]
    assert len({pair.shift for pair in seen}) > 6 and {pair.mirrored for pair in seen} == {True, False}
    for pair in seen:
        one_hot = torch.nn.functional.one_hot(pair.labels[:, 0], 4).movedim(-1, 1).float()
        assert consistency.disagreement(one_hot, pair) == 0
        one_hot[1] = one_hot[1].roll(1, 2)
        assert consistency.disagreement(one_hot, pair) > 0.05


def test_the_last_phase_makes_a_network_answer_both_views_alike(head: Subject, tmp_path: Path) -> None:
    rough = Phase(6, 3e-3, False)
    plain, even = (
        train([head], tmp_path / str(weight), replace(SHORT, phases=(rough, Phase(12, 3e-3, True, weight))))
        for weight in (1e-9, 30.0)
    )
    pairs = [consistency.views(head, 900 + n) for n in range(4)]

    def apart(network: torch.nn.Module) -> float:
        with torch.inference_mode():
            found = [consistency.disagreement(network(p.images).softmax(1), p) for p in pairs]
        return float(torch.stack(found).mean())

    assert apart(even) < apart(plain)


def test_a_change_is_a_function_of_its_number() -> None:
    drawn = [hardening.draw((1, 8, 8, 8), n) for n in range(8)]
    assert torch.equal(drawn[0].start, hardening.draw((1, 8, 8, 8), 0).start)
    bounds = {one.eps for one in drawn}
    assert len(bounds) > 4 and max(bounds) <= hardening.EPS


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("number", range(4))
def test_a_hardened_sample_is_changed_within_its_bound_so_that_the_loss_rises(
    head: Subject, number: int, steps: int
) -> None:
    network, image = untrained(), sample(head, number)[0][None]
    change = replace(hardening.draw(image.shape, number), eps=0.02)
    answer = network(image).detach()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (network(x) - answer).square().mean()

    x = hardening.changed(image, change, loss, steps)
    begun = (image + change.eps * change.start).clamp(0, 1)
    assert (x - image).abs().max() <= change.eps + 1e-6 and x.min() >= 0 and x.max() <= 1
    assert loss(x) > loss(begun)
    if steps > 1:
        assert loss(x) > loss(hardening.changed(image, change, loss))
    assert torch.equal(hardening.changed(image, replace(change, eps=0.0), loss), image)


def untrained() -> torch.nn.Module:
    """An untrained network that answers alike each time."""
    torch.manual_seed(0)
    return build_network().eval()


def test_hardening_goes_on_from_a_trained_network_and_keeps_its_norms(head: Subject, tmp_path: Path) -> None:
    begin = train([head], tmp_path / "begin", replace(SHORT, phases=SHORT.phases[:1]))
    before = copy.deepcopy(begin.state_dict())
    found = train([head], tmp_path, replace(SHORT, phases=SHORT.phases[3:]), begin=begin).state_dict()
    changed = {name for name, x in found.items() if not torch.equal(x, before[name])}
    assert changed and not any("running" in name for name in changed)


HARD = Phase(1, 1e-3, True, consistency=1.0, hardened=1)


def test_a_hardened_phase_learns_from_the_changed_sample(head: Subject, tmp_path: Path) -> None:
    network = train([head], tmp_path, replace(SHORT, phases=(Phase(12, 3e-3, False),))).eval()
    for number in range(3):
        image, labels, change = _hardened_sample(head, number)
        given = [(image, labels, replace(change, eps=eps)) for eps in (0.0, 0.1)]
        plain = replace(HARD, consistency=0.0)
        losses = [_of_hardened(plain, network, network, one) for one in given]
        apart = [_of_hardened(HARD, network, network, one) for one in given]
        assert losses[1] > losses[0]
        # Unchanged, it answers as before; what the weight adds is how far it then moves.
        assert apart[0] - losses[0] < 1e-6 < apart[1] - losses[1]


def test_the_robust_twin_begins_at_the_shipped_weights(
    head: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "twin.safetensors"
    monkeypatch.setattr(robust, "load_subjects", lambda folder: [head])
    arguments = ["robust", "DATA", "--work", str(tmp_path), "--iterations", "2", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    robust.main()
    shipped, twin = (network_of(file).state_dict() for file in (WEIGHTS, out))
    apart = {
        name: float((twin[name] - x).abs().max()) for name, x in shipped.items() if x.is_floating_point()
    }
    assert max(apart.values()) < 0.05 and any(apart.values())
    assert not any(change for name, change in apart.items() if "running" in name)


def test_scoring_the_twin_trains_nothing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["validate", "DATA", "--work", "WORK", "--robust"])
    with pytest.raises(SystemExit):
        validate.main()
    assert "--folds 0" in capsys.readouterr().err


def test_contradictions_about_heads_that_were_learned_from_are_taken_for_those_of_new_ones() -> None:
    given = np.array([[[0.1, 0.0]], [[0.3, 0.0]], [[0.4, 0.2]]])
    learned = np.array([True, True, False])
    np.testing.assert_allclose(as_if_new(given, learned), [[[0.2, 0.0]], [[0.6, 0.0]], [[0.4, 0.2]]])
    for all_or_none in (learned | True, learned & False):
        assert as_if_new(given, all_or_none) is given


def _no_training(fraction: float, step: str) -> None:
    raise AssertionError("what was trained is trained again")


def test_leave_subjects_out_scores_each_head_once(head: Subject, tmp_path: Path) -> None:
    heads = [replace(head, name=name) for name in ("one", "two")]
    recipe = replace(SHORT, phases=(Phase(1, 1e-3, False),))
    rows = cross_validate([*heads, head], tmp_path, recipe, folds=2)
    assert [(row["subject"], row["fold"]) for row in rows] == [("one", 0)] * 2 + [("two", 1)] * 2
    assert (tmp_path / "validation.json").exists()
    again = left_out([*heads, head], tmp_path, recipe, folds=2, only=[1], progress=_no_training)
    ((fold, held_out, _),) = again
    assert fold == 1 and held_out == heads[1:]


def test_the_table_has_a_line_for_each_head_and_their_mean(head: Subject, tmp_path: Path) -> None:
    network = train([head], tmp_path, replace(SHORT, phases=(Phase(1, 1e-3, False),)))
    rows = score(target_of(network, ""), head)
    lines = table(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["MNI152", "mean"]
    assert f"{rows[0]['Grey matter']:.3f} / {rows[1]['Grey matter']:.3f}" in lines[2]


def test_regions_become_tissues() -> None:
    regions = np.array([[[0, 1, 51], [35, 81, 95], [23, 100, 207]]])
    expected = [[[0, CSF, CSF], [WHITE, WHITE, WHITE], [GREY, GREY, GREY]]]
    assert tissues_of_regions(regions).tolist() == expected


def test_a_folder_without_labelled_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels"):
        load_subjects(tmp_path)


def test_shipped_calibration_gets_its_second_opinion_later(small_target, small_heads):
    """What `--onto` does: the same volumes, shifts and stand-ins, and none of the rows again."""
    second = NetworkTarget("second", small_target.network, small_target.structures, "02", (4.0, 4.0, 4.0))
    coarse = NetworkTarget("coarse", small_target.network, small_target.structures, "01", (4.0, 4.0, 4.0))
    heads, stand_ins = small_heads[:3], {"head 1": coarse}
    at_once = calibrate_shipped(small_target, heads, stand_ins, second)
    alone = replace(at_once, second=None)

    def rows(heads, stand_ins=None) -> Rows:
        return Rows(small_target, heads, per_volume=4, stand_ins=stand_ins)

    assert with_opinion(alone, rows(heads, stand_ins), second).sha256 == at_once.sha256
    by_itself = with_opinion(alone, rows(heads), second)  # stand-ins are not always kept
    assert by_itself.sha256 != at_once.sha256 and replace(by_itself, second=None).sha256 == alone.sha256
    others = [(name, volume) for (name, _), (_, volume) in zip(heads, small_heads[2:5], strict=True)]
    with pytest.raises(InputError, match="head 0"):
        with_opinion(alone, rows(others), second)


def test_contradictions_are_those_measured_where_the_second_target_learned_something_else(
    monkeypatch: pytest.MonkeyPatch, small_target, small_heads
) -> None:
    """What `--unlike` does."""
    monkeypatch.setattr(calibrate_script, "_UNSEEN", ("head 0",))
    second = NetworkTarget("second", small_target.network, small_target.structures, "02", (4.0, 4.0, 4.0))
    alone = calibrate_shipped(small_target, small_heads[:2], {})
    rows = Rows(small_target, small_heads[:2], per_volume=4)
    measured = with_second_opinion(alone, rows, second).second.contradictions
    scaled, kept = (with_opinion(alone, rows, second, alike).second.contradictions for alike in (True, False))
    np.testing.assert_array_equal(kept, measured)
    new = np.array(alone.subjects) == "head 0"
    np.testing.assert_allclose(scaled[~new].mean(0), measured[new].mean(0))
    assert not np.allclose(scaled, measured)


@pytest.mark.parametrize(
    ("capabilities", "half"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_f": True}, False),
    ],
)
def test_half_precision_is_used_only_where_the_processor_has_it(monkeypatch, capabilities, half) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with precision.mixed():
        answer = torch.nn.Linear(2, 2)(torch.zeros(1, 2))
    assert (answer.dtype == torch.bfloat16) is half
