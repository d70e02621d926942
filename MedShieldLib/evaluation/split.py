"""Which volumes the benchmark uses for a target: split by subject, so that none is on both sides.

Without a folder MNI152 alone serves. A folder is split as its heads.csv says (`own_heads.py`), else as the
development data's (`development_heads.py`) if it holds those, else by dealing its volumes out.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from MedShieldLib.errors import InputError
from MedShieldLib.evaluation import development_heads, own_heads
from MedShieldLib.evaluation.heads import MNI152, Head, Role


def heads_for(target_name: str, data: Path | None, only: Collection[str] = ()) -> tuple[Head, ...]:
    """The heads for one target.

    Without data, MNI152 plays all roles: good for trying out, worthless as a figure.

    Args:
        target_name: of the development data, one that comes with a calibration is tested on fewer heads.
        data: folder with volumes/.
        only: subjects to test on, of those that are for tests; empty for all.

    Raises:
        InputError: if the folder holds no head to test on, or none of such a name, or its heads.csv is wrong.
    """
    if data is None:
        return tuple(Head(MNI152, None, role) for role in Role)
    found = own_heads.listed(data) or development_heads.found(target_name, data) or own_heads.dealt(data)
    known = {h.subject for h in found}
    for name in only:
        if name not in known:
            raise InputError(f"{data} holds no head '{name}'; it has {', '.join(sorted(known))}.")
    found = [h for h in found if h.role is not Role.TEST or not only or h.subject in only]
    if not any(h.role is Role.TEST and h.ordinary for h in found):
        raise InputError(
            f"{data} holds no such head to test on; it needs volumes/*.nii.gz, and --heads names from there."
        )
    return tuple(found)
