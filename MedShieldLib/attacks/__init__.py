"""The red team: attacks on a target, one a file, named as in its paper.

`load_attack(name, **parameters)` gives one of them; all are called alike (`base.py`).
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING

from MedShieldLib.errors import InputError

if TYPE_CHECKING:
    from MedShieldLib.attacks.base import Attack

__all__ = ["ATTACKS", "load_attack"]

# Name: module and class. Modules load only when asked for.
ATTACKS: dict[str, tuple[str, str]] = {
    "pgd": ("pgd", "PGD"),
}


def load_attack(name: str, **parameters) -> Attack:
    """The attack called `name`, its defaults overridden by `parameters`.

    Raises:
        InputError: if there is no such attack, or it has no such parameter.
    """
    if name not in ATTACKS:
        raise InputError(f"There is no attack '{name}'; use one of {', '.join(ATTACKS)}.")
    module, class_name = ATTACKS[name]
    kind = getattr(import_module(f"MedShieldLib.attacks.{module}"), class_name)
    known = [field.name for field in fields(kind)]
    for parameter in parameters:
        if parameter not in known:
            raise InputError(f"Attack '{name}' has no parameter '{parameter}'; it has {', '.join(known)}.")
    return kind(**parameters)
