"""Calibration: made of clean volumes alone, stored and read back as it was, refused where it does not fit."""

from __future__ import annotations

import ast
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import MedShieldLib
from MedShieldLib import detector, shifts
from MedShieldLib.calibration import Calibration, calibrate
from MedShieldLib.detector import PROFILE_EDGES, pairs
from MedShieldLib.errors import Cancelled, InputError
from MedShieldLib.targets.network import NetworkTarget
from MedShieldLib.versions import LowPass, Moved, Probe, votes
from MedShieldLib.volume import Volume

Heads = list[tuple[str, Volume]]
MILD = (shifts.none, shifts.gamma)
FAMILY = (LowPass(0.6), Moved(3, False))
SHIPPED = Path(MedShieldLib.__file__).parent / "data" / "brain-tissue.calibration.json"


def sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 300
    return message


def test_a_row_for_every_volume_under_every_shift(small_calibration: Calibration) -> None:
    c = small_calibration
    assert c.subjects == tuple(f"head {n}" for n in range(4) for _ in range(4))
    assert c.shift_names == ("none", "gamma", "bias_field", "eight_bit") * 4
    assert c.disagreements.shape == (16, len(c.versions), 2)
    assert c.dispersions.shape == (16, len(pairs(len(c.versions))), 2)
    assert c.features.shape == (16, len(c.feature_names))
    assert c.profiles.shape == (16, len(PROFILE_EDGES) - 1)
    assert c.n_subjects == 4
    assert (c.disagreements >= 0).all() and (c.disagreements.max((0, 2)) > 0).all()


def test_few_shifts_take_turns_and_the_plain_volume_is_always_seen(
    small_target: NetworkTarget, small_heads: Heads
) -> None:
    shown = (shifts.none, shifts.gamma, shifts.bias_field, shifts.eight_bit)
    c = calibrate(small_target, small_heads[:3], FAMILY, augmentations=shown, per_volume=2)
    assert c.subjects == ("head 0", "head 0", "head 1", "head 1", "head 2", "head 2")
    assert c.shift_names == ("none", "gamma", "none", "bias_field", "none", "eight_bit")


def test_a_stand_in_answers_for_its_subject_alone(small_target: NetworkTarget, small_heads: Heads) -> None:
    coarse = NetworkTarget("coarse", small_target.network, small_target.structures, "01", (4.0, 4.0, 4.0))
    plain, mixed = (
        calibrate(small_target, small_heads[:2], FAMILY, augmentations=MILD, stand_ins=others)
        for others in ({}, {"head 1": coarse})
    )
    assert (mixed.target_name, mixed.target_sha256) == (small_target.name, small_target.sha256)
    np.testing.assert_array_equal(mixed.disagreements[:2], plain.disagreements[:2])
    assert (mixed.disagreements[2:] != plain.disagreements[2:]).any()


def test_a_file_gives_back_what_was_saved(small_calibration: Calibration, tmp_path: Path) -> None:
    path = small_calibration.save(tmp_path / "Kalibrierung für München.json")
    loaded = Calibration.load(path)
    for field in fields(Calibration):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(small_calibration, field.name))
    assert loaded.sha256 == small_calibration.sha256
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_hash_tells_calibrations_apart(small_calibration: Calibration) -> None:
    disagreements = small_calibration.disagreements.copy()
    disagreements[3, 0, 1] += 1e-4
    others = (
        replace(small_calibration, disagreements=disagreements),
        replace(small_calibration, name="another"),
        replace(small_calibration, versions=(*small_calibration.versions[:-1], LowPass(0.3))),
    )
    assert len({c.sha256 for c in (small_calibration, *others)}) == 4


def test_one_seed_gives_one_calibration(small_target: NetworkTarget, small_heads: Heads) -> None:
    one, same, other = (
        calibrate(small_target, small_heads[:1], FAMILY, augmentations=MILD, seed=seed).sha256
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_progress_rises_and_cancelling_stops(small_target: NetworkTarget, small_heads: Heads) -> None:
    steps: list[tuple[float, str]] = []

    def progress(fraction: float, step: str) -> None:
        steps.append((fraction, step))

    with pytest.raises(Cancelled):
        calibrate(
            small_target, small_heads, FAMILY, augmentations=MILD, progress=progress,
            cancelled=lambda: len(steps) == 4,
        )  # fmt: skip
    assert [fraction for fraction, _ in steps] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert steps[1][1] == "head 0: gamma"


def test_no_volume_no_calibration(small_target: NetworkTarget) -> None:
    with pytest.raises(InputError) as error:
        calibrate(small_target, [], FAMILY)
    assert "at least one" in sentence(error)


def test_another_target_or_other_weights_are_refused(
    small_calibration: Calibration, small_target: NetworkTarget
) -> None:
    small_calibration.require_target(small_target)
    for name, sha256 in (("by-intensity", "01"), ("brain-tissue", "00")):
        other = NetworkTarget(name, small_target.network, small_target.structures, sha256, (3.0, 3.0, 3.0))
        with pytest.raises(InputError) as error:
            small_calibration.require_target(other)
        assert name in sentence(error) and "medshield calibrate" in sentence(error)


DAMAGE = {
    "half a file": lambda text: text[: len(text) // 2],
    "no JSON": lambda text: "clean",
    "not an object": lambda text: "[1, 2]",
    "another schema": lambda text: text.replace("medshield-calibration/2", "medshield-calibration/9"),
    "no schema": lambda text: text.replace('"schema"', '"shema"'),
    "an unknown version": lambda text: text.replace('"LowPass"', '"HighPass"'),
    "a missing part": lambda text: text.replace('"features"', '"feature"'),
    "an unknown part": lambda text: text.replace('{"schema"', '{"more": 1, "schema"'),
    "a row too few": lambda text: text.replace('"head 0", ', "", 1),
    "a pair too few": lambda text: _edited(text, lambda data: [row.pop() for row in data["dispersions"]]),
    "no number": lambda text: _edited(text, lambda data: data["disagreements"][0][0].__setitem__(0, None)),
    "a word for a number": lambda text: _edited(text, lambda d: d["features"][0].__setitem__(0, "x")),
    "rows of unequal length": lambda text: _edited(text, lambda data: data["features"][0].pop()),
    "no rows": lambda text: _edited(text, _without_rows),
}


def _edited(text: str, edit) -> str:
    data = json.loads(text)
    edit(data)
    return json.dumps(data)


def _without_rows(data: dict) -> None:
    for name in ("subjects", "shift_names", "disagreements", "dispersions", "features", "profiles"):
        data[name] = []


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_name(
    small_calibration: Calibration, tmp_path: Path, damage: str
) -> None:
    path = small_calibration.save(tmp_path / "damaged.json")
    path.write_text(DAMAGE[damage](path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError) as error:
        Calibration.load(path)
    assert "damaged.json is not a MedShield calibration" in sentence(error)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_bytes(b"\x80\x04\xff\x00" * 100)
    with pytest.raises(InputError, match=r"weights\.json is not a MedShield calibration"):
        Calibration.load(path)


def test_a_missing_file_and_a_place_that_cannot_be_written_are_refused(
    small_calibration: Calibration, tmp_path: Path
) -> None:
    for action in (Calibration.load, small_calibration.save):
        with pytest.raises(InputError) as error:
            action(tmp_path / "nowhere" / "c.json")
        assert "c.json" in sentence(error)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError):
        small_calibration.save(tmp_path / "folder.json")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.json"]


def test_no_calibration_ships_for_an_unknown_target(small_target: NetworkTarget) -> None:
    with pytest.raises(InputError) as error:
        Calibration.shipped(small_target)
    assert "medshield calibrate" in sentence(error)


def test_a_calibration_too_small_for_alpha_says_so(small_calibration: Calibration) -> None:
    assert "at least 19" in (small_calibration.support(0.05) or "")
    assert "16 clean scores" in (small_calibration.support(0.05) or "")
    assert "4 subjects" in (small_calibration.support(0.1) or "")
    assert small_calibration.support(0.2) is None


def test_a_calibration_supports_the_alpha_that_it_is_just_large_enough_for(
    small_calibration: Calibration,
) -> None:
    names = tuple(str(n) for n in range(19))
    just = replace(small_calibration, subjects=names, shift_names=("none",) * 19)
    assert just.support(0.05) is None
    assert just.support(0.049) is not None


def test_the_quick_family_of_one_with_a_probe_is_the_probe_and_a_moved_version(
    small_calibration: Calibration,
) -> None:
    last = len(small_calibration.versions) - 1
    probe = Probe(LowPass(0.9))
    probed = replace(small_calibration, versions=(*small_calibration.versions[:last], probe)).limited(2)
    assert probed.versions[1] == probe and isinstance(probed.versions[0], Moved)


def test_the_quick_family_is_one_in_place_and_one_moved(small_calibration: Calibration) -> None:
    quick = small_calibration.limited(2)
    assert [isinstance(version, Moved) for version in quick.versions] == [False, True]
    for n, version in enumerate(quick.versions):
        row = small_calibration.versions.index(version)
        np.testing.assert_array_equal(quick.disagreements[:, n], small_calibration.disagreements[:, row])
    both = [small_calibration.versions.index(version) for version in quick.versions]
    between = pairs(len(small_calibration.versions)).index((both[0], both[1]))
    np.testing.assert_array_equal(quick.dispersions[:, 0], small_calibration.dispersions[:, between])
    assert quick.instability.shape == small_calibration.instability.shape


@pytest.mark.parametrize("family", ["small", "shipped"])
def test_every_part_of_a_family_has_the_clean_figures_of_its_versions(
    small_calibration: Calibration, family: str
) -> None:
    whole = small_calibration if family == "small" else Calibration.load(SHIPPED)
    for count in range(2, len(whole.versions)):
        part = whole.limited(count)
        part._require_consistent()
        rows = [whole.versions.index(version) for version in part.versions]
        assert len(rows) == count and rows == sorted(rows)
        assert set(whole.limited(2).versions) <= set(part.versions) and any(map(votes, part.versions))
        np.testing.assert_array_equal(part.disagreements, whole.disagreements[:, rows])
        for column, (a, b) in enumerate(pairs(count)):
            between = pairs(len(whole.versions)).index((rows[a], rows[b]))
            np.testing.assert_array_equal(part.dispersions[:, column], whole.dispersions[:, between])
        assert part.instability.shape == whole.instability.shape and part.sha256 != whole.sha256


def test_a_family_is_whole_from_its_own_number_on(small_calibration: Calibration) -> None:
    size = len(small_calibration.versions)
    assert small_calibration.limited(size) is small_calibration.limited(size + 1) is small_calibration


@pytest.mark.parametrize("count", [1, 0, -3])
def test_fewer_than_two_versions_are_refused(small_calibration: Calibration, count: int) -> None:
    with pytest.raises(InputError, match=f"{count} versions .* take 2 or more"):
        small_calibration.limited(count)


def test_a_family_that_never_moves_is_limited_to_its_first_and_last_version(
    small_calibration: Calibration,
) -> None:
    family = tuple(LowPass(0.5 + 0.01 * n) for n in range(len(small_calibration.versions)))
    assert replace(small_calibration, versions=family).limited(2).versions == (family[0], family[-1])


def test_a_family_with_nothing_in_place_cannot_be_limited(small_calibration: Calibration) -> None:
    family = tuple(Moved(3, False, LowPass(0.5 + 0.01 * n)) for n in range(len(small_calibration.versions)))
    with pytest.raises(InputError, match="take all of them"):
        replace(small_calibration, versions=family).limited(2)


def test_clean_scores_are_on_scales_that_never_saw_their_subject(small_calibration: Calibration) -> None:
    disagreements = small_calibration.disagreements.copy()
    mine = [subject == "head 2" for subject in small_calibration.subjects]
    disagreements[mine] *= 10
    changed = replace(small_calibration, disagreements=disagreements)
    factor = 10 ** (1 + detector.UNEXPLAINED)
    np.testing.assert_allclose(changed.instability[mine], factor * small_calibration.instability[mine])


def test_a_family_of_one_version_is_saved_and_read_back(
    small_calibration: Calibration, tmp_path: Path
) -> None:
    alone = replace(
        small_calibration,
        versions=small_calibration.versions[:1],
        disagreements=small_calibration.disagreements[:, :1],
        dispersions=small_calibration.dispersions[:, :0],
    )
    loaded = Calibration.load(alone.save(tmp_path / "alone.json"))
    assert loaded.dispersions.shape == (16, 0, 2)
    np.testing.assert_array_equal(loaded.instability, alone.instability)


def test_the_profile_band_holds_most_of_the_clean_profiles(small_calibration: Calibration) -> None:
    low, high = small_calibration.profile_band()
    seen = np.isfinite(low)
    relative = (small_calibration.profiles - small_calibration.profiles[:, 1:2])[:, seen]
    assert seen.any() and (low[seen] <= high[seen]).all()
    inside = (relative >= low[seen]) & (relative <= high[seen])
    assert 0.75 < inside[:, 2:].mean() < 1


def test_two_profiles_are_no_band(small_calibration: Calibration) -> None:
    few = replace(small_calibration, profiles=small_calibration.profiles[:2])
    assert np.isnan(few.profile_band()).all()


@pytest.mark.parametrize(
    "module", ["calibration", "recalibration", "families", "reformer", "detector", "observation", "shield"]
)
def test_nothing_that_decides_ever_sees_an_attack(module: str) -> None:
    """Neither here nor in anything that is imported from here, at the top of a file or inside a function."""
    reached = reachable(f"MedShieldLib.{module}")
    assert "MedShieldLib.slabs" in reached
    assert not [name for name in reached if name.startswith("MedShieldLib.attacks")]


def reachable(module: str) -> set[str]:
    """All modules of the package that a module can come to import, itself included."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        path = module_path(name)
        if path is None or name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
    return found


def module_path(name: str) -> Path | None:
    """The file of one of our modules, but for the package itself, whose public names load everything."""
    if not name.startswith("MedShieldLib."):
        return None
    path = Path(MedShieldLib.__file__).parents[1].joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)
