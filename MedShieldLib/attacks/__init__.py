"""The red team: attacks on a target, one a file, named as in its paper.

`load_attack(name, **parameters)` gives one of them; all are called alike (`base.py`).
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING

from MedShieldLib.errors import InputError

if TYPE_CHECKING:
    from MedShieldLib.attacks.base import Attack

__all__ = ["ADAPTIVE", "ATTACKS", "PREPARED", "attack_class", "load_attack"]

# Name: module and class. Modules load only when asked for.
ATTACKS: dict[str, tuple[str, str]] = {
    "fgsm": ("fgsm", "FGSM"),
    "bim": ("bim", "BIM"),
    "pgd": ("pgd", "PGD"),
    "segpgd": ("segpgd", "SegPGD"),
    "cospgd": ("cospgd", "CosPGD"),
    "apgd": ("apgd", "APGD"),
    "sea": ("sea", "SEA"),
    "dag": ("dag", "DAG"),
    "asma": ("asma", "ASMA"),
    "vafa": ("vafa", "VAFA"),
    "sa2": ("sa2", "SA2"),
    "low-frequency": ("low_frequency", "LowFrequency"),
    "bias-field": ("low_frequency", "BiasField"),
    "universal": ("universal", "Universal"),
    "local-patch": ("patch", "LocalPatch"),
    "square": ("square", "Square"),
    "transfer": ("transfer", "Transfer"),
}
# These need something made before: a pattern fitted on other volumes, or another target.
PREPARED = ("universal", "transfer")
# Attacks that know a shield and need it as their parameter.
ADAPTIVE: dict[str, tuple[str, str]] = {
    "adaptive-reformed": ("adaptive.reformed", "Reformed"),
    "adaptive-joint": ("adaptive.joint", "Joint"),
    "adaptive-selective": ("adaptive.selective", "Selective"),
    "adaptive-orthogonal": ("adaptive.selective", "Orthogonal"),
    "adaptive-stability": ("adaptive.stability", "StabilityAdaptive"),
}


def attack_class(name: str) -> type[Attack]:
    """The class of the attack called `name`.

    Raises:
        InputError: if there is no such attack.
    """
    known_attacks = ATTACKS | ADAPTIVE
    if name not in known_attacks:
        raise InputError(f"There is no attack '{name}'; use one of {', '.join(known_attacks)}.")
    module, class_name = known_attacks[name]
    return getattr(import_module(f"MedShieldLib.attacks.{module}"), class_name)


def load_attack(name: str, **parameters) -> Attack:
    """The attack called `name`, its defaults overridden by `parameters`.

    Raises:
        InputError: if there is no such attack, it has no such parameter, or one is missing or wrong.
    """
    kind = attack_class(name)
    known = {field.name: field for field in fields(kind)}
    for parameter in parameters:
        if parameter not in known:
            raise InputError(f"Attack '{name}' has no parameter '{parameter}'; it has {', '.join(known)}.")
    for parameter, its in known.items():
        if parameter not in parameters and its.default is MISSING and its.default_factory is MISSING:
            raise InputError(f"Attack '{name}' needs its '{parameter}'; use it from Python.")
    converted = {key: _converted(name, key, value, known[key].default) for key, value in parameters.items()}
    return kind(**converted)


def _converted(name: str, parameter: str, value: object, default: object) -> object:
    """A value, or the text of one, as what the parameter's default is: a flag, a number or a choice."""
    if default is None or default is MISSING:
        return value
    kind = type(default)
    try:
        if kind is bool:
            return {"True": True, "False": False}[str(value)]
        if kind is int and int(value) != value:  # type: ignore[call-overload]
            raise ValueError(value)
        return kind(value)  # type: ignore[call-arg]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"Attack '{name}' takes no {parameter}={value}; give {_choices(default)}.") from None


def _choices(default: object) -> str:
    if isinstance(default, Enum):
        return ", ".join(choice.value for choice in type(default))
    return "True or False" if isinstance(default, bool) else f"a number like {default}"
