"""Somebody else's model: the JSON that describes it, what may be opened, and what it may answer."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from MedShieldLib.errors import InputError
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.targets.description import describe_foreign_code, read
from MedShieldLib.targets.window import Window
from MedShieldLib.volume import Structure, Volume

LIVER = {"value": 4, "name": "Liver", "color": [0.8, 0.4, 0.3]}
TUMOUR = {"value": 2, "name": "Tumour", "color": [1, 1, 0]}

Write = Callable[..., Path]


class Threshold(torch.nn.Module):
    """Three classes by intensity."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(40.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.3 - x, (0.2 - (x - 0.5).abs()), x - 0.7], dim=1) * self.slope


class ThresholdProbabilities(Threshold):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([0.3 - x, (0.2 - (x - 0.5).abs()), x - 0.7], dim=1) * self.slope
        return torch.softmax(logits, dim=1)


class TwoChannels(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class NotANumber(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x, x / 0.0], dim=1)


class OneClassMissing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, 1 - x], dim=1)


class HalfTheSize(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x, x], dim=1)[..., ::2, ::2, ::2]


class Several(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


class Complains(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 5:
            raise ValueError("I only take slices")
        return x


class Doubles(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class NeedsEights(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(2) % 8 != 0 or x.size(3) % 8 != 0 or x.size(4) % 8 != 0:
            raise ValueError("sizes must be multiples of 8")
        return torch.cat([0.3 - x, x - 0.3, x - 0.9], dim=1)


class WritesAFile(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen.pt")
        return torch.cat([x, x, x], dim=1)


class MapsAFile(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x, x + torch.from_file("stolen.bin", True, 4).sum()], dim=1)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a model and its description into a folder with a difficult name; returns the description."""
    folder = tmp_path / "modèles à moi"
    folder.mkdir()

    def written(network: torch.nn.Module | None = None, without: str = "", **entries) -> Path:
        if network is not None:
            torch.jit.script(network).save(str(folder / "net.pt"))
        described = {"model": "net.pt", "spacing_mm": [1, 1, 1], "structures": [LIVER, TUMOUR], **entries}
        described.pop(without, None)
        path = folder / "net.json"
        path.write_text(json.dumps(described), encoding="utf-8")
        return path

    return written


@pytest.fixture
def volume() -> Volume:
    """(20, 22, 24) voxels with three intensities: 0 below, 50 in the middle slices, 100 above."""
    voxels = np.zeros((20, 22, 24), np.int16)
    voxels[6:12], voxels[12:] = 50, 100
    return Volume(voxels)


def _refusal(path: Path, volume: Volume | None = None) -> str:
    """The message of an InputError at loading, or at the first answer if `volume` is given."""
    if volume is None:
        with pytest.raises(InputError) as caught:
            load_target(path)
    else:
        target = load_target(path)
        with pytest.raises(InputError) as caught:
            target.probabilities(volume)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and message.endswith((".", "')"))
    return message


# The description


def test_every_entry_of_a_description_is_read(write: Write) -> None:
    path = write(
        name="Abdomen",
        orientation="RAI",
        window={"range": [-160, 240]},
        patch_size=[16, 32, 48],
        divisor=4,
        output="probabilities",
        spacing_mm=[0.8, 0.8, 2.5],
    )
    described = read(path)
    assert described.model == path.parent / "net.pt"
    assert (described.name, described.orientation) == ("Abdomen", "RAI")
    assert described.spacing_mm == (0.8, 0.8, 2.5)
    assert described.window == Window(-160, 240, fixed=True)
    assert (described.patch_size, described.divisor) == ((16, 32, 48), 4)
    assert described.output == "probabilities"
    assert described.structures[0] == Structure(4, "Liver", (0.8, 0.4, 0.3))


def test_three_entries_are_enough(write: Write) -> None:
    described = read(write())
    assert (described.name, described.orientation, described.output) == ("net", "LPS", "logits")
    assert described.window == Window(0.5, 99.5)
    assert (described.patch_size, described.divisor) == (None, 1)


@pytest.mark.parametrize("key", ["model", "spacing_mm", "structures"])
def test_a_missing_entry_is_named(write: Write, key: str) -> None:
    assert f"net.json has no entry '{key}'" in _refusal(write(without=key))


def test_an_unknown_entry_is_named_with_the_known_ones(write: Write) -> None:
    message = _refusal(write(spacing=[1, 1, 1]))
    assert "unknown entry 'spacing'" in message and "spacing_mm" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 7),
        ("model", ""),
        ("model", "../net.pt"),
        ("model", "/etc/passwd"),
        ("model", "\\\\host\\share\\net.pt"),
        ("model", ".."),
        ("name", ["x"]),
        ("name", "   "),
        ("spacing_mm", [1, 1]),
        ("spacing_mm", [1, 1, 0]),
        ("spacing_mm", [1, 1, -2]),
        ("spacing_mm", [1, 1, "1"]),
        ("spacing_mm", [1, 1, True]),
        ("spacing_mm", [1, 1, float("nan")]),
        ("spacing_mm", [1, 1, 10**400]),
        ("spacing_mm", 1),
        ("orientation", "LPX"),
        ("orientation", "LRS"),
        ("orientation", "lps"),
        ("orientation", "LPSS"),
        ("orientation", None),
        ("window", [0, 1]),
        ("window", {"percentiles": [99, 1]}),
        ("window", {"percentiles": [0, 101]}),
        ("window", {"range": [5, 5]}),
        ("window", {"range": [0, 1], "percentiles": [0, 100]}),
        ("window", {"range": 5}),
        ("window", {"level": [0, 1]}),
        ("window", {}),
        ("patch_size", [64, 64]),
        ("patch_size", [64, 64, 0]),
        ("patch_size", [64, 64, 64.5]),
        ("patch_size", [64, 64, 10**9]),
        ("patch_size", 64),
        ("divisor", 0),
        ("divisor", 2.5),
        ("divisor", True),
        ("output", "labels"),
        ("output", []),
        ("structures", []),
        ("structures", LIVER),
        ("structures", [LIVER, {**TUMOUR, "value": 4}]),
        ("structures", [{**LIVER, "value": 0}]),
        ("structures", [{**LIVER, "value": 256}]),
        ("structures", [{**LIVER, "value": 1.5}]),
        ("structures", [{**LIVER, "color": [0, 0]}]),
        ("structures", [{**LIVER, "color": [0, 0, 200]}]),
        ("structures", [{**LIVER, "name": ""}]),
        ("structures", [{**LIVER, "opacity": 1}]),
        ("structures", [{"value": 1, "name": "x"}]),
    ],
    ids=str,
)
def test_a_wrong_entry_is_refused_with_what_it_must_be(write: Write, key: str, value: object) -> None:
    message = _refusal(write(**{key: value}))
    assert f"net.json: '{key}' must be " in message


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "[" * 100_000, "\udcff"])
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "net.json" in _refusal(path)


def test_a_huge_or_missing_description_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in _refusal(tmp_path / "none.json")
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * (2**20 + 1))
    assert "too large" in _refusal(huge)


def test_faces_can_ask_before_foreign_code_runs(write: Write) -> None:
    assert describe_foreign_code("brain-tissue") is None
    question = describe_foreign_code(write())
    assert question is not None and "net.pt" in question and "trust" in question
    with pytest.raises(InputError):
        describe_foreign_code(write(divisor=0))


# What may be opened


def test_a_missing_model_is_named(write: Write) -> None:
    assert "net.pt cannot be read" in _refusal(write())


def _pickle_that_runs(flag: Path) -> bytes:
    class Runs:
        def __reduce__(self):
            return (Path.touch, (flag,))

    return pickle.dumps(Runs())


def test_pickles_and_checkpoints_are_refused_before_they_can_run(write: Write, tmp_path: Path) -> None:
    path, flag = write(), tmp_path / "ran"
    model = path.parent / "net.pt"
    dangerous = _pickle_that_runs(flag)

    model.write_bytes(dangerous)
    assert "is not a TorchScript file" in _refusal(path)

    torch.save(TwoChannels().state_dict(), model)
    message = _refusal(path)
    assert "weights or a pickle" in message and "torch.jit.trace" in message

    torch.save(TwoChannels().state_dict(), model, _use_new_zipfile_serialization=False)
    assert "is not a TorchScript file" in _refusal(path)

    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("net/data.pkl", dangerous)
        archive.writestr("net/version", "3\n")
    assert "weights or a pickle" in _refusal(path)
    assert not flag.exists()


def test_a_program_with_a_dangerous_pickle_inside_runs_nothing(write: Write, tmp_path: Path) -> None:
    path, flag = write(Threshold()), tmp_path / "ran"
    _rewrite(path.parent / "net.pt", {"data.pkl": _pickle_that_runs(flag)})
    assert "cannot open" in _refusal(path)
    assert not flag.exists()


def _rewrite(model: Path, changes: dict[str, bytes]) -> None:
    """Replaces or adds entries of a TorchScript file, by their names below its root."""
    with zipfile.ZipFile(model) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(entries)).partition("/")[0]
    entries.update({f"{root}/{name}": data for name, data in changes.items()})
    with zipfile.ZipFile(model, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_rewritten_but_honest_file_still_opens(write: Write, volume: Volume) -> None:
    path = write(Threshold())
    _rewrite(path.parent / "net.pt", {})
    assert load_target(path).probabilities(volume).shape == (3, 20, 22, 24)


def test_a_zip_bomb_is_refused_unopened(write: Write) -> None:
    path = write(Threshold())
    with zipfile.ZipFile(path.parent / "net.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data/9", bytes(2**27))
    assert "would unpack to 128 MB" in _refusal(path)


def test_a_program_that_is_a_bomb_is_refused(write: Write) -> None:
    path = write(Threshold())
    with zipfile.ZipFile(path.parent / "net.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/code/bomb.py", b" " * (2**26 + 1))
    assert "would unpack to" in _refusal(path)


@pytest.mark.parametrize(
    "name", ["net/../../evil", "net\\evil", "other/data.pkl", "NET/DATA.PKL", "/net/x", "net/version"]
)
def test_files_not_built_by_pytorch_are_refused(write: Write, name: str) -> None:
    path = write(Threshold())
    with zipfile.ZipFile(path.parent / "net.pt", "a") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, b"x")
    assert "not built as PyTorch builds" in _refusal(path)


def test_a_zip_behind_other_bytes_is_refused(write: Write) -> None:
    path = write(Threshold())
    model = path.parent / "net.pt"
    model.write_bytes(b"MZ" + model.read_bytes())
    assert "is not a TorchScript file" in _refusal(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_model_is_refused(write: Write, share: float) -> None:
    path = write(Threshold())
    model = path.parent / "net.pt"
    model.write_bytes(model.read_bytes()[: int(model.stat().st_size * share)])
    assert "net.pt is damaged" in _refusal(path)


def test_a_damaged_program_is_refused(write: Write) -> None:
    path = write(Threshold())
    _rewrite(path.parent / "net.pt", {"data.pkl": b"\x80\x02not a pickle."})
    assert "cannot open" in _refusal(path)


@pytest.mark.parametrize("network", [WritesAFile(), MapsAFile()], ids=lambda n: type(n).__name__)
def test_a_program_that_reaches_for_files_is_refused(
    write: Write, network: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(network)
    message = _refusal(path)
    assert "can reach files" in message
    honest = write(Threshold())
    _rewrite(honest.parent / "net.pt", {"CODE/__TORCH__/MORE.PY": b"torch.save(1, 'x')"})
    assert "'save'" in _refusal(honest)
    assert not list(tmp_path.glob("stolen*"))


def test_another_kind_of_file_is_refused(write: Write) -> None:
    path = write()
    shutil.copy(__file__, path.parent / "net.pt")
    assert "is not a TorchScript file" in _refusal(path)


# What it may answer


@pytest.mark.parametrize("entries", [{}, {"patch_size": [16, 16, 16]}, {"divisor": 16}], ids=str)
def test_a_described_model_segments(write: Write, volume: Volume, entries: dict) -> None:
    target = load_target(write(Threshold(), **entries))
    assert isinstance(target, DifferentiableTarget)
    labels = target.labelmap(target.probabilities(volume), volume)
    assert (labels[:6] == 0).all() and (labels[6:12] == 4).all() and (labels[12:] == 2).all()
    x = target.window(volume).requires_grad_()
    (gradient,) = torch.autograd.grad(target.logits(x)[:, 2].sum(), x)
    assert torch.allclose(gradient, torch.full_like(gradient, 40.0), rtol=1e-3)
    assert np.array_equal(target.labelmap(target.probabilities(volume), volume), labels)


def test_probabilities_are_taken_as_such(write: Write, volume: Volume) -> None:
    logits = load_target(write(Threshold())).probabilities(volume)
    direct = load_target(write(ThresholdProbabilities(), output="probabilities")).probabilities(volume)
    assert np.allclose(logits, direct, atol=1e-6)


def test_logits_declared_as_probabilities_are_refused(write: Write, volume: Volume) -> None:
    message = _refusal(write(Threshold(), output="probabilities"), volume)
    assert "are no probabilities" in message and '"output": "logits"' in message


def test_orientation_and_spacing_are_followed(write: Write, volume: Volume) -> None:
    target = load_target(write(Threshold(), orientation="SAR", spacing_mm=[2, 1, 1]))
    assert target.finest_mm == 1
    x = target.window(volume)
    assert x.shape == (1, 1, 24, 22, 10)  # along R, A, S
    assert (torch.diff(x, dim=4) >= 0).all() and float(x[..., 0].max()) == 0 and float(x[..., -1].min()) == 1


def test_a_fixed_window_is_followed(write: Write, volume: Volume) -> None:
    target = load_target(write(Threshold(), window={"range": [0, 200]}))
    assert float(target.window(volume).max()) == pytest.approx(0.5)


def test_divisor_pads_for_the_model_and_not_for_the_caller(write: Write, volume: Volume) -> None:
    assert load_target(write(NeedsEights(), divisor=8)).probabilities(volume).shape == (3, 20, 22, 24)
    assert "multiples of 8" in _refusal(write(NeedsEights()), volume)


@pytest.mark.parametrize("patch_size", [None, [16, 16, 16]])
@pytest.mark.parametrize(
    ("network", "words"),
    [
        (TwoChannels(), "cannot take one channel of .* to have 2 channels"),
        (NotANumber(), "answered with NaN or Inf"),
        (OneClassMissing(), r"answered with \(1, 2, 20, 22, 24\) instead of \(1, 3, 20, 22, 24\)"),
        (HalfTheSize(), r"answered with \(1, 3, 10, 11, 12\) instead of"),
        (Several(), "answered with tuple instead of"),
        (Complains(), "I only take slices"),
        (Doubles(), "cannot take one channel"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_wrong_models_are_refused_in_one_sentence(
    write: Write, volume: Volume, network: torch.nn.Module, words: str, patch_size: list[int] | None
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_target(write(network, patch_size=patch_size)).probabilities(volume)
    assert str(caught.value).startswith("Target 'net' ") and "\n" not in str(caught.value)


def test_a_spacing_beyond_all_memory_is_refused(write: Write, volume: Volume) -> None:
    assert "too large a volume" in _refusal(write(Threshold(), spacing_mm=[1e-4] * 3), volume)


def test_hash_follows_weights_and_use_but_not_names(write: Write) -> None:
    network = Threshold()
    first = load_target(write(network)).sha256
    assert load_target(write(name="Other", structures=[{**LIVER, "name": "Leber"}, TUMOUR])).sha256 == first
    others = [
        load_target(write(spacing_mm=[1, 1, 2])).sha256,
        load_target(write(window={"range": [0, 1]})).sha256,
        load_target(write(structures=[TUMOUR, LIVER])).sha256,
    ]
    network.slope.data += 1
    others.append(load_target(write(network)).sha256)
    assert len({first, *others}) == 5
