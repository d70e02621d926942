"""The robust twin of the reference target: its shipped weights, trained on under changes made against them.

Run as `python -m MedShieldLib.training.robust DATA --work WORK` (two hours on one core); it resumes. How a
sample is changed is in `hardening.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from MedShieldLib.study import exit_code
from MedShieldLib.targets.brain_tissue import ROBUST_WEIGHTS, WEIGHTS, network_of
from MedShieldLib.training import command
from MedShieldLib.training.data import load_subjects
from MedShieldLib.training.train import Phase, Recipe, train

# Steadiness under change counts as much beside the labels as steadiness of two views did before. Changes of
# one step come first, because they are cheap; a network that bears them does not bear those of several.
RECIPE = Recipe(
    phases=(
        Phase(3000, 7e-4, norms_fixed=True, consistency=3.0, hardened=1),
        Phase(2600, 5e-4, norms_fixed=True, consistency=3.0, hardened=3),
    ),
    seed=11,
)


@exit_code
def main() -> None:
    """Command line."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROBUST_WEIGHTS, help="default: where the shipped ones are"
    )
    arguments = parser.parse_args()
    recipe = RECIPE if arguments.iterations is None else RECIPE.of_length(arguments.iterations)

    subjects = load_subjects(arguments.data)
    network = train(subjects, arguments.work, recipe, command.say, begin=network_of(WEIGHTS))
    command.save(network, arguments.out)
    print(f"\n{arguments.out}")


if __name__ == "__main__":
    sys.exit(main())
