"""The volumes of somebody's own benchmark: listed in a heads.csv, or dealt out.

heads.csv stands beside volumes/ and has one line a volume, with the columns

    subject  unit of the split; all its volumes play the same part
    file     relative to the folder
    role     learn, calibrate or test, see `heads.Role`
    shift    for a test volume that shows a benign shift by itself: the shift's name
    attack   for a test volume that somebody attacked, with whatever tool: the attack's name
    eps      the bound of that attack, in 255ths of the target's window
    against  the shield that the attacker knew, such as shield; empty for one who knew none

of which the last four may be left out. An attacked volume lies on the voxels of its subject's ordinary one.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.heads import Head, Role
from MedShieldLib.reading import extension_of

LIST = "heads.csv"
_NEEDED, _OPTIONAL = ("subject", "file", "role"), ("shift", "attack", "eps", "against")
# The first and every third volume tests, and the others learn and calibrate in turn.
_DEALT = (Role.TEST, Role.LEARN, Role.CALIBRATE)


def listed(folder: Path) -> list[Head]:
    """What heads.csv lists, the volumes of one subject together; none if there is no such file.

    Raises:
        InputError: naming the line that is wrong.
    """
    path = folder / LIST
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, line) for line in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table of text ({error}).") from error
    for wrong in (*(n for n in _NEEDED if n not in columns), *_unknown(columns)):
        raise InputError(
            f"{path} has the wrong columns ('{wrong}'); it needs {', '.join(_NEEDED)} and may have "
            f"{', '.join(_OPTIONAL)}."
        )
    heads = [_head(folder, f"{path}, line {number}", line) for number, line in lines]
    _require_split(path, heads)
    subjects = list(dict.fromkeys(head.subject for head in heads))
    return sorted(heads, key=lambda head: (subjects.index(head.subject), not head.ordinary))


def dealt(folder: Path) -> list[Head]:
    """The volumes of volumes/, each a subject of its own, dealt out by name; none if they are too few.

    A subject with several volumes would fall on both sides: that needs a heads.csv.
    """
    volumes = folder / "volumes"
    paths = sorted(p for p in volumes.iterdir() if extension_of(p)) if volumes.is_dir() else []
    if len(paths) < len(_DEALT):
        return []
    return [Head(path.name.partition(".")[0], path, _DEALT[n % len(_DEALT)]) for n, path in enumerate(paths)]


def _head(folder: Path, where: str, line: dict) -> Head:
    """One line.

    Raises:
        InputError: if it is wrong.
    """
    entries = {name: (line.get(name) or "").strip() for name in (*_NEEDED, *_OPTIONAL)}
    if not entries["subject"]:
        raise InputError(f"{where}: the subject is missing.")
    if entries["role"] not in set(Role):
        raise InputError(f"{where}: the role is '{entries['role']}'; use {', '.join(Role)}.")
    path = folder / entries["file"]
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}.")
    shift, attack, role = entries["shift"], entries["attack"], Role(entries["role"])
    if (shift and attack) or ((shift or attack) and role is not Role.TEST):
        raise InputError(f"{where}: a volume to test on has a shift or an attack, and no other has any.")
    if entries["against"] and not attack:
        raise InputError(f"{where}: a volume that nobody attacked was made against no shield; clear that.")
    eps = _eps(where, attack, entries["eps"])
    return Head(entries["subject"], path, role, shift, attack, eps, entries["against"])


def _eps(where: str, attack: str, text: str) -> float:
    if not attack:
        return 0.0
    try:
        eps = float(text)
    except ValueError:
        eps = 0.0
    if not 0 < eps <= 255:
        raise InputError(f"{where}: eps is '{text}'; give the attack's bound in 255ths, such as 8.")
    return eps


def _require_split(path: Path, heads: Sequence[Head]) -> None:
    """Refuse a subject on both sides, twice where once is meant, or attacked without an ordinary volume.

    Raises:
        InputError: naming the subject.
    """
    for subject in {head.subject for head in heads}:
        mine = [head for head in heads if head.subject == subject]
        if len({head.role for head in mine}) > 1:
            raise InputError(f"{path}: subject '{subject}' has more than one role; give it a single one.")
        if sum(head.ordinary for head in mine) > 1:
            raise InputError(
                f"{path}: subject '{subject}' has more than one volume without shift or attack; list one."
            )
        if not any(head.ordinary for head in mine) and any(head.attack for head in mine):
            raise InputError(
                f"{path}: subject '{subject}' has attacked volumes alone; list the clean one as well."
            )


def _unknown(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in (*_NEEDED, *_OPTIONAL)]
