"""What is made ready for one target before anything is measured: defences that learn, fitted attacks.

Everything that takes long is kept in a folder for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from MedShieldLib.attacks import ADAPTIVE, attack_class, load_attack
from MedShieldLib.attacks.base import Attack
from MedShieldLib.attacks.transfer import Transfer
from MedShieldLib.attacks.universal import Universal
from MedShieldLib.calibration import Calibration
from MedShieldLib.errors import InputError
from MedShieldLib.evaluation.baselines import FILTERS, Filtered, Undefended
from MedShieldLib.evaluation.defence import Defence, Setting
from MedShieldLib.evaluation.magnet import MagNet
from MedShieldLib.evaluation.plan import ALPHA, SHIELDS, parse_attack
from MedShieldLib.evaluation.published import Published
from MedShieldLib.evaluation.shielded import Shielded, calibration_for, with_learned_reformer, with_opinion_of
from MedShieldLib.evaluation.spectrum import SpectrumDetector
from MedShieldLib.shield import Shield
from MedShieldLib.targets import DifferentiableTarget, Target, load_target
from MedShieldLib.targets.brain_tissue import ROBUST_NAME

# A universal perturbation is fitted on so many heads.
_ENOUGH = 4
# What may be chosen about that.
_FITTING = ("epochs", "momentum", "step_size")


@dataclass(frozen=True)
class Preparation:
    """Defences and attacks for one target.

    Attributes:
        learning: with the heads that a defence may learn from.
        calibrating: with all clean heads: the shield's own calibration needs no heads apart.
        second_opinion: the target that `shield-second` asks as well, by name or JSON file.
    """

    learning: Setting
    calibrating: Setting
    second_opinion: str = ROBUST_NAME

    def defence(self, name: str) -> Defence:
        """A defence by name, ready for the target.

        Raises:
            InputError: if it cannot be had here, such as a second opinion of a model that is not installed.
            Cancelled: when asked to stop; a later call goes on.
        """
        if name == "none":
            return Undefended()
        if name == "shield-second":
            second = load_target(self.second_opinion)
            return Shielded(with_opinion_of(second, self.calibrating), name, second)
        if name == "shield-learned":
            return Shielded(with_learned_reformer(self.calibrating), name)
        if name in SHIELDS:
            return Shielded.limited(self._calibration, SHIELDS[name], name)
        learned: dict[str, Callable[[Setting], Defence]] = {
            "magnet": MagNet.fit,
            "spectrum-only": SpectrumDetector.fit,
            "park-2020": Published.fit,
        }
        if name in learned:
            return learned[name](self.learning)
        # A filter learns nothing but its strength: on all clean heads, as the shield chooses its versions.
        return Filtered.fit(next(family for family in FILTERS if family.name == name), self.calibrating)

    def attack(self, text: str, eps: float, against: Defence | None = None) -> Attack:
        """An attack by its text (see `plan.parse_attack`), ready for the bound `eps`.

        Args:
            text: name and parameters.
            eps: in units of the target's window.
            against: the shield that an adaptive attack knows, with its calibration and alarm rate.

        Raises:
            InputError: if there is no such attack, or it has no such parameter.
            Cancelled: when asked to stop.
        """
        name, parameters = parse_attack(text)
        if name == "transfer":
            # The parameters are those of the search on the other model.
            return Transfer(_another(self.learning.target), load_attack("pgd", **parameters))
        if name in ADAPTIVE:
            assert isinstance(against, Shielded)
            parameters["shield"] = Shield(
                self.learning.target, against.calibration, alpha=ALPHA, second=against.second
            )
        return self._universal(eps, **parameters) if name == "universal" else load_attack(name, **parameters)

    def version(self, text: str) -> tuple[str, ...]:
        """What decides an attack beside its text: its surrogate, and its code once that was revised.

        Nothing for the first revision, so that cells older than revisions stay found.
        """
        name, _ = parse_attack(text)
        revision = attack_class(name).revision
        surrogate = (self._surrogate_sha256,) if name == "transfer" else ()
        return (*surrogate, *((f"revision {revision}",) if revision > 1 else ()))

    @cached_property
    def _surrogate_sha256(self) -> str:
        """Where it cannot be had, "absent": its cells are skipped, and measured once it is here."""
        try:
            return _another(self.learning.target).sha256
        except InputError:
            return "absent"

    @cached_property
    def _calibration(self) -> Calibration:
        return calibration_for(self.calibrating)

    def _universal(self, eps: float, **parameters: float) -> Universal:
        from safetensors.torch import load_file, save_file

        for parameter in parameters:
            if parameter not in _FITTING:
                raise InputError(
                    f"Attack 'universal' has no parameter '{parameter}'; it has {', '.join(_FITTING)}."
                )
        setting = self.learning
        chosen = "".join(f"-{key}={value}" for key, value in sorted(parameters.items()))
        path = setting.folder / f"universal-{Universal.revision}-{eps * 255:g}{chosen}.safetensors"
        if not path.exists():
            heads = [volume for _, volume in setting.clean[:_ENOUGH]]
            fitted = Universal.fit(
                cast(DifferentiableTarget, setting.target),
                heads,
                eps,
                seed=setting.seed,
                progress=setting.progress,
                cancelled=setting.cancelled,
                **cast(dict[str, Any], parameters),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            save_file({"pattern": fitted.pattern.contiguous()}, temporary)
            os.replace(temporary, path)
        return Universal(load_file(path)["pattern"])


def _another(target: Target) -> DifferentiableTarget:
    """A model of a related task and another architecture that anybody can get, for attacks to begin at."""
    other = load_target("deepbet-coarse" if target.name == "brain-tissue" else "brain-tissue")
    return cast(DifferentiableTarget, other)


def prepare(setting: Setting, learn: list[str], second_opinion: str = ROBUST_NAME) -> Preparation:
    """From all clean heads; `learn` names the subjects that defences may learn from."""
    mine = [(subject, volume) for subject, volume in setting.clean if subject in learn]
    return Preparation(replace(setting, clean=mine), setting, second_opinion)
