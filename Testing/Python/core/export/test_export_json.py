"""result.json: strict JSON in the schema that ships beside the code, and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from MedShieldLib.export.json_result import SCHEMA_FILE, dumps, parts_from
from MedShieldLib.result import CheckResult, TargetInfo, Verdict

# The keys that the project promises to its users.
PROMISED = {
    "schema", "verdict", "p_attack", "p_novelty", "alpha", "evidence", "structures", "timings_s", "target",
    "calibration", "input_sha256", "version",
}  # fmt: skip
PROMISED_PER_STRUCTURE = {"label", "name", "dice", "hd95_mm", "original_ml", "defended_ml"}
FILES = {"original": "original.nii.gz"}


def _strictly(text: str) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _problems(data: object) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    validator.check_schema(validator.schema)
    return [error.message for error in validator.iter_errors(data)]


@pytest.mark.parametrize("verdict", Verdict)
def test_it_follows_its_schema_for_every_verdict(make_result, verdict: Verdict) -> None:
    assert _problems(_strictly(dumps(make_result(verdict), FILES))) == []


def test_it_has_what_was_promised(attacked: CheckResult) -> None:
    data = _strictly(dumps(attacked, FILES))
    assert data.keys() >= PROMISED
    assert all(row.keys() == PROMISED_PER_STRUCTURE for row in data["structures"])
    assert data["verdict"] == "suspected_attack" and data["schema"] == "medshield-result/1"
    assert data["evidence"]["low_pass"]["percentile"] == 100
    assert data["target"]["sha256"] == attacked.target.sha256
    assert data["libraries"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("key", "value"),
    [("verdict", "maybe"), ("p_attack", 1.5), ("structures", {}), ("timings_s", {"a": "fast"})],
)
def test_the_schema_notices_what_is_wrong(attacked: CheckResult, key: str, value: object) -> None:
    data = _strictly(dumps(attacked, FILES))
    assert _problems({**data, key: value})
    assert _problems({name: data[name] for name in data if name != key})


def test_what_is_not_a_number_becomes_null_and_comes_back(attacked: CheckResult) -> None:
    rows = tuple(replace(row, hd95_mm=math.nan) for row in attacked.structures)
    odd = replace(attacked, structures=rows, p_novelty=math.inf, timings_s={"total": np.float32(1.5)})
    data = _strictly(dumps(odd, FILES))
    assert data["structures"][0]["hd95_mm"] is None and data["p_novelty"] is None
    assert data["timings_s"] == {"total": 1.5}
    assert _problems(data) == []
    assert math.isnan(parts_from(data)["structures"][0].hd95_mm)


def test_everything_but_voxels_comes_back(attacked: CheckResult) -> None:
    parts = parts_from(_strictly(dumps(attacked, FILES)))
    voxels = {"volume", "original", "defended", "reformed", "heatmap"}
    assert parts.keys() | voxels == {field.name for field in fields(CheckResult)}
    for name in parts.keys() - {"evidence", "spectrum"}:
        assert parts[name] == getattr(attacked, name), name
    for found, written in zip(parts["evidence"], attacked.evidence, strict=True):
        assert (found.name, found.kind) == (written.name, written.kind)
        np.testing.assert_array_equal([found.value, found.percentile], [written.value, written.percentile])
        np.testing.assert_array_equal(found.clean, written.clean)
    np.testing.assert_array_equal(parts["spectrum"].log_power, attacked.spectrum.log_power)


def test_the_second_target_is_named(attacked: CheckResult) -> None:
    doubted = replace(attacked, second=TargetInfo("deepbet-coarse", "cd" * 32))
    data = _strictly(dumps(doubted, FILES))
    assert _problems(data) == [] and data["second_opinion"]["name"] == "deepbet-coarse"
    assert parts_from(data)["second"] == doubted.second
    earlier = {key: value for key, value in data.items() if key != "second_opinion"}
    assert _problems(earlier) == [] and parts_from(earlier)["second"] is None


def test_evidence_of_the_same_name_is_not_lost(attacked: CheckResult) -> None:
    first, second, *_ = attacked.evidence
    twice = replace(attacked, evidence=(first, replace(second, name=first.name)))
    data = _strictly(dumps(twice, FILES))
    assert list(data["evidence"]) == [first.name, f"{first.name} (2)"]
    assert data["evidence"][f"{first.name} (2)"]["value"] == second.value


def test_another_schema_is_refused(attacked: CheckResult) -> None:
    data = _strictly(dumps(attacked, FILES))
    with pytest.raises(ValueError, match="medshield-result/2"):
        parts_from({**data, "schema": "medshield-result/2"})
