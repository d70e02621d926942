"""Which volumes a benchmark uses: listed by the user, or dealt out; split by subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.plan import Kind, Plan
from MedShieldLib.evaluation.split import heads_for

HEADER = "subject,file,role,shift,attack,eps,against"


def folder_of(path: Path, *names: str) -> Path:
    """A folder with empty volumes of these names."""
    (path / "volumes").mkdir()
    for name in names:
        (path / "volumes" / name).touch()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(
        tmp_path, "a.nii.gz", "b.nrrd", "c.mha", "c_later.nii.gz", "c_attacked.nii.gz", "notes.txt"
    )


def listed(folder: Path, *lines: str, header: str = HEADER) -> Path:
    (folder / "heads.csv").write_text("\n".join((header, *lines)) + "\n")
    return folder


def test_a_list_says_what_every_volume_is_for(folder):
    listed(
        folder,
        "c,volumes/c_attacked.nii.gz,test,,their attack,8",
        "a,volumes/a.nii.gz,learn,,,",
        "c,volumes/c.mha,test,,,",
        "c,volumes/c_later.nii.gz,test,real-flair,,",
        "b,volumes/b.nrrd,calibrate,,,",
    )
    cells = [
        (c.kind, c.head.subject, c.name, c.eps)
        for c in Plan(folder, folder, attacks=(), shifts=()).cells("x")
    ]
    assert cells[:3] == [
        (Kind.CLEAN, "c", "", 0),
        (Kind.ATTACK, "c", "their attack", 8),
        (Kind.SHIFT, "c", "real-flair", 0),
    ]
    assert {subject for kind, subject, _, _ in cells if kind is Kind.CALIBRATION} == {"a", "b"}


def test_an_attack_on_a_shield_that_is_none_is_refused(folder):
    listed(folder, "a,volumes/a.nii.gz,test,,,,", "a,volumes/b.nrrd,test,,theirs,8,armour")
    with pytest.raises(InputError, match="b.nrrd: there is no shield 'armour'; use shield-quick"):
        Plan(folder, folder, attacks=(), shifts=()).cells("x")


def test_columns_for_shifts_and_attacks_may_be_left_out(folder):
    listed(folder, "a,volumes/a.nii.gz,test", "b,volumes/b.nrrd,learn", header="subject,file,role")
    assert [(h.subject, h.role) for h in heads_for("x", folder)] == [("a", Role.TEST), ("b", Role.LEARN)]


def test_volumes_without_a_list_are_dealt_out_by_name(folder):
    found = heads_for("x", folder)
    assert [(h.subject, h.role.value) for h in found] == [
        ("a", "test"),
        ("b", "learn"),
        ("c", "calibrate"),
        ("c_attacked", "test"),
        ("c_later", "learn"),
    ]
    assert [h.subject for h in heads_for("x", folder, only=["a"]) if h.role is Role.TEST] == ["a"]


def test_a_name_that_is_not_there_is_refused_beside_one_that_is(folder):
    with pytest.raises(InputError, match="no head 'a_T1'; it has a, b, c, c_attacked, c_later"):
        heads_for("x", folder, only=["a", "a_T1"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,volumes/a.nii.gz,judge,,,"], "line 2: the role is 'judge'"),
        (["a,volumes/gone.nii.gz,test,,,"], "gone.nii.gz"),
        ([",volumes/a.nii.gz,test,,,"], "line 2: the subject is missing"),
        (["a,volumes/a.nii.gz,test,,,", "a,volumes/b.nrrd,learn,,,"], "'a' has more than one role"),
        (["a,volumes/a.nii.gz,test,,,", "a,volumes/b.nrrd,test,,,"], "'a' has more than one volume"),
        (["a,volumes/a.nii.gz,test,,pgd,8"], "'a' has attacked volumes alone"),
        (["a,volumes/a.nii.gz,test,,,", "a,volumes/b.nrrd,test,,pgd,strong"], "line 3: eps is 'strong'"),
        (["a,volumes/a.nii.gz,test,,,", "a,volumes/b.nrrd,test,,pgd,nan"], "line 3: eps is 'nan'"),
        (["a,volumes/a.nii.gz,test,,,,shield"], "line 2: a volume that nobody attacked"),
        (["a,volumes/a.nii.gz,test,,,", "a,volumes/b.nrrd,test,gamma,pgd,8"], "line 3: a volume to test on"),
        (["a,volumes/a.nii.gz,learn,,pgd,8"], "line 2: a volume to test on"),
        (["a,volumes/a.nii.gz,learn,,,"], "no such head to test on"),
    ],
)
def test_a_wrong_list_is_refused_in_one_sentence(folder, lines, said):
    with pytest.raises(InputError) as caught:
        heads_for("x", listed(folder, *lines))
    message = str(caught.value)
    assert said in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("header", ["subject,file", "subject,file,role,colour", ""])
def test_wrong_columns_are_named(folder, header):
    with pytest.raises(InputError, match="columns"):
        heads_for("x", listed(folder, header=header))


def test_a_list_that_is_no_text_is_refused(folder):
    (folder / "heads.csv").write_bytes(np.random.default_rng(0).bytes(400))
    with pytest.raises(InputError, match="cannot be read as a table"):
        heads_for("x", folder)


@pytest.mark.parametrize("names", [(), ("a.nii.gz", "b.nii.gz")])
def test_too_few_volumes_are_refused(tmp_path, names):
    with pytest.raises(InputError, match="no such head to test on"):
        heads_for("x", folder_of(tmp_path, *names))
