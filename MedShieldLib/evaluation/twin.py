"""What a second opinion is worth: how far it contradicts the target, and what attacks leave of either.

Run as `python -m MedShieldLib.evaluation.twin DATA` (an hour on one core; without attacks, `--steps 0`).
DATA holds volumes/. It is the reference target and its robust twin unless others are named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from MedShieldLib import second_opinion
from MedShieldLib.attacks.pgd import PGD
from MedShieldLib.errors import InputError
from MedShieldLib.study import exit_code
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.volume import Volume

TARGET, TWIN = "brain-tissue", "brain-tissue-robust"
# Of other sources than the heads that either learned from.
UNSEEN = ("mricron_ch2", "nv_spm152", "nv_MR_Gd", "trio_b17_mprage", "nichart_IXI012-HH-1211_T1")
LEARNED = ("nichart_Subj1_T1", "nichart_Subj5_T1")
ATTACKED = ("trio_b17_mprage", "nichart_IXI012-HH-1211_T1")
BOUNDS = (4, 8)  # in 255ths of the window


def contradictions(
    target: DifferentiableTarget, twin: DifferentiableTarget, heads: Sequence[tuple[str, Volume]]
) -> Iterator[str]:
    """A line a head: of each structure, what the target misses of the twin's answer and what it adds."""
    names = [structure.name for structure in target.structures]
    yield f"| head | {' | '.join(names)} |"
    yield "| --- " * (len(names) + 1) + "|"
    for name, volume in heads:
        apart = second_opinion.contradictions(target, target.probabilities(volume), twin, volume, seed=1)
        cells = (f"{missed:.2f} / {added:.2f}" for missed, added in apart)
        yield f"| {name} | {' | '.join(cells)} |"


def left_of(
    models: Sequence[DifferentiableTarget], heads: Sequence[tuple[str, Volume]], steps: int
) -> Iterator[str]:
    """A line a head and bound: the Dice that PGD leaves of each model's own answer."""
    yield f"| head | bound | {' | '.join(model.name for model in models)} |"
    yield "| --- " * (len(models) + 2) + "|"
    for name, volume in heads:
        for bound in BOUNDS:
            attack = PGD(steps=steps)
            cells = (f"{1 - attack(model, volume, bound / 255, seed=1).dice_drop:.2f}" for model in models)
            yield f"| {name} | {bound}/255 | {' | '.join(cells)} |"


def volumes(folder: Path, names: Sequence[str]) -> list[tuple[str, Volume]]:
    """Those heads of a folder that are there.

    Raises:
        InputError: if none is.
    """
    files = [(name, folder / "volumes" / f"{name}.nii.gz") for name in names]
    found = [(name, Volume.read(file)) for name, file in files if file.exists()]
    if not found:
        raise InputError(f"{folder} has none of the heads, such as volumes/{names[0]}.nii.gz.")
    return found


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/")
    parser.add_argument("--steps", type=int, default=40, help="of the attack; 0 leaves it out (default: 40)")
    parser.add_argument("--target", default=TARGET, help=f"name or JSON file (default: {TARGET})")
    parser.add_argument("--twin", default=TWIN, help=f"who is asked as well (default: {TWIN})")
    parser.add_argument("--heads", nargs="+", default=UNSEEN + LEARNED, help="names of volumes")
    parser.add_argument("--attacked", nargs="+", default=ATTACKED, help="those of them to attack")
    arguments = parser.parse_args()
    target, twin = (_differentiable(name) for name in (arguments.target, arguments.twin))
    for line in contradictions(target, twin, volumes(arguments.data, arguments.heads)):
        print(line, flush=True)
    if arguments.steps:
        print()
        for line in left_of((target, twin), volumes(arguments.data, arguments.attacked), arguments.steps):
            print(line, flush=True)


def _differentiable(name: str) -> DifferentiableTarget:
    target = load_target(name)
    if not isinstance(target, DifferentiableTarget):
        raise InputError(f"Target '{name}' shows no gradients, which attacks need.")
    return target


if __name__ == "__main__":
    sys.exit(main())
