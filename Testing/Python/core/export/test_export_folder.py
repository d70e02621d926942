"""The folder of results: all of it or nothing, and never anybody else's files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.export import folder as folder_module
from MedShieldLib.export.folder import OWN_FILES, load_result, require_output_folder, save_result
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.volume import Volume

PROMISED = {
    "original.nii.gz", "reformed.nii.gz", "heatmap.nii.gz", "original_segmentation.nii.gz",
    "original_segmentation.seg.nrrd", "defended_segmentation.nii.gz", "defended_segmentation.seg.nrrd",
    "result.json", "report.html",
}  # fmt: skip


def _state(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder, hidden files included."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def saved(attacked: CheckResult, tmp_path: Path) -> Path:
    """A folder with results of an earlier check, and a file and a folder of somebody else's."""
    out = save_result(attacked, tmp_path / "out", report=False)
    (out / "notes.txt").write_text("mine")
    (out / "sub").mkdir()
    (out / "sub" / "result.json").write_text("mine too")
    return out


def test_all_promised_files_are_there_and_nothing_else(attacked: CheckResult, tmp_path: Path) -> None:
    out = attacked.save(tmp_path / "new" / "Prüfung 1")
    assert _state(out).keys() == PROMISED == set(OWN_FILES)
    assert os.listdir(tmp_path) == ["new"] and os.listdir(tmp_path / "new") == ["Prüfung 1"]


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_others_may_read_the_folder_if_the_umask_says_so(attacked: CheckResult, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    assert save_result(attacked, tmp_path / "out", report=False).stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("verdict", Verdict)
def test_a_saved_result_is_loaded_as_it_was(make_result, verdict: Verdict, tmp_path: Path) -> None:
    result = make_result(verdict)
    back = load_result(save_result(result, tmp_path / "out", report=False))
    assert (back.verdict, back.structures, back.notes) == (verdict, result.structures, result.notes)
    for name in ("volume", "reformed", "heatmap"):
        found, written = getattr(back, name), getattr(result, name)
        assert found.voxels.dtype == written.voxels.dtype and found.same_geometry(written)
        np.testing.assert_array_equal(found.voxels, written.voxels)
    for name in ("original", "defended"):
        found, written = getattr(back, name), getattr(result, name)
        np.testing.assert_array_equal(found.labels, written.labels)
        assert [s.name for s in found.structures] == [s.name for s in written.structures]
    assert (back.defended is back.original) == (verdict is Verdict.CLEAN)
    assert back.volume.source == result.volume.source


def test_results_are_not_overwritten_unasked(saved: Path, attacked: CheckResult) -> None:
    before = _state(saved)
    with pytest.raises(InputError, match="--force"):
        save_result(attacked, saved)
    assert _state(saved) == before


def test_force_replaces_our_files_and_no_others(saved: Path, make_result) -> None:
    (saved / "report.html").write_text("of an earlier check")
    save_result(make_result(Verdict.CLEAN), saved, force=True, report=False)
    assert load_result(saved).verdict is Verdict.CLEAN
    assert not (saved / "report.html").exists(), "a report of another check stayed"
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "sub" / "result.json").read_text() == "mine too"
    assert _state(saved).keys() == (PROMISED - {"report.html"}) | {"notes.txt", "sub", "sub/result.json"}


def test_a_folder_with_foreign_files_alone_needs_no_force(attacked: CheckResult, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save_result(attacked, tmp_path, report=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("step", range(0, 2 * len(OWN_FILES) - 2))
def test_an_interrupted_replacement_is_undone(
    saved: Path, make_result, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = _state(saved)
    replace_file, calls = os.replace, []

    def interrupted(*names: Path) -> None:
        if names[1].parent == saved or names[0].parent == saved:
            calls.append(names)
            if len(calls) == step + 1:
                raise KeyboardInterrupt
        replace_file(*names)

    monkeypatch.setattr(folder_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_result(make_result(Verdict.CLEAN), saved, force=True, report=False)
    assert _state(saved) == before


@pytest.mark.parametrize("force", [False, True])
def test_an_interrupted_writing_leaves_nothing(
    attacked: CheckResult, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    def interrupted(self: Volume, path: Path) -> None:
        Path(path).write_bytes(b"half")
        if path.name.startswith("heatmap"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Volume, "write", interrupted)
    before = _state(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        save_result(attacked, saved if force else tmp_path / "a" / "b" / "c", force=force)
    assert _state(tmp_path) == before


def test_a_full_disk_is_said_in_a_sentence(
    attacked: CheckResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedShieldLib.export.json_result.dumps", full)
    with pytest.raises(InputError, match="No space left"):
        save_result(attacked, tmp_path / "out", report=False)
    assert _state(tmp_path) == {}


def test_without_the_libraries_of_the_report_the_rest_is_saved(
    attacked: CheckResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "MedShieldLib.export.report", raising=False)
    with pytest.warns(UserWarning, match=r"medshield\[report\]"):
        out = save_result(attacked, tmp_path / "out")
    assert _state(out).keys() == PROMISED - {"report.html"}
    assert load_result(out).verdict is attacked.verdict


def _file(base: Path) -> Path:
    (base / "file").write_text("x")
    return base / "file"


def _below_a_file(base: Path) -> Path:
    return _file(base) / "out"


def _broken_link(base: Path) -> Path:
    (base / "link").symlink_to(base / "nowhere")
    return base / "link"


def _folder_in_the_way(base: Path) -> Path:
    (base / "report.html").mkdir()
    return base


def _too_long(base: Path) -> Path:
    return base / ("x" * 300)


@pytest.mark.parametrize("make", [_file, _below_a_file, _broken_link, _folder_in_the_way, _too_long])
def test_impossible_folders_are_refused_in_one_sentence_before_the_work(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    out = make(tmp_path)
    before = _state(tmp_path)
    with pytest.raises(InputError) as caught:
        require_output_folder(out, force=True)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and "Errno" not in message
    assert _state(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    out = tmp_path
    if os.geteuid() == 0:  # root may write anywhere but there
        out = Path("/proc")
        if not out.is_dir():
            pytest.skip("root may write everywhere here")
    else:
        out.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        require_output_folder(out / "new")


def test_looking_at_a_folder_changes_nothing(tmp_path: Path) -> None:
    require_output_folder(tmp_path / "a" / "b")
    assert _state(tmp_path) == {}


@pytest.mark.parametrize("damage", ["", "{", '{"schema": "medshield-result/1"}', "[]"])
def test_a_damaged_result_is_refused_by_name(saved: Path, damage: str) -> None:
    (saved / "result.json").write_text(damage)
    with pytest.raises(InputError, match=r"result\.json"):
        load_result(saved)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        load_result(tmp_path)


@pytest.mark.parametrize("name", ["Schädel 脑.nii.gz", "old-\udce4-name.nii.gz"])
def test_any_name_of_a_scan_can_be_saved(attacked: CheckResult, tmp_path: Path, name: str) -> None:
    named = replace(attacked, volume=replace(attacked.volume, source=Path("/scans") / name))
    assert load_result(save_result(named, tmp_path / "out")).volume.source == Path("/scans") / name


def test_a_scan_without_a_file_comes_back_without_one(attacked: CheckResult, tmp_path: Path) -> None:
    nameless = replace(attacked, volume=replace(attacked.volume, source=None))
    assert load_result(save_result(nameless, tmp_path / "out", report=False)).volume.source is None
