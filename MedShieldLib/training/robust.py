"""The robust twin of the reference target: its shipped weights, trained on under changes made against them.

Run as `python -m MedShieldLib.training.robust DATA --work WORK` (45 minutes on one core); it resumes. How a
sample is changed is in `hardening.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from MedShieldLib.targets.brain_tissue import ROBUST_WEIGHTS, WEIGHTS, network_of
from MedShieldLib.training.data import load_subjects
from MedShieldLib.training.train import Phase, Recipe, save, train

# What keeps the twin close to its twin counts as much as in the last phase of that one's training.
RECIPE = Recipe(phases=(Phase(3000, 7e-4, norms_fixed=True, consistency=3.0, hardened=True),), seed=11)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/ and labels/")
    parser.add_argument("--work", type=Path, required=True, help="for checkpoints; a rerun picks up there")
    parser.add_argument(
        "--out", type=Path, default=ROBUST_WEIGHTS, help="default: where the shipped ones are"
    )
    parser.add_argument("--iterations", type=int, help="default: as for the shipped weights")
    arguments = parser.parse_args()
    recipe = RECIPE if arguments.iterations is None else RECIPE.of_length(arguments.iterations)

    def say(fraction: float, step: str) -> None:
        print(f"\r{fraction:6.1%}  {step}", end="", flush=True)

    subjects = load_subjects(arguments.data)
    save(train(subjects, arguments.work, recipe, say, begin=network_of(WEIGHTS)), arguments.out)
    print(f"\n{arguments.out}")


if __name__ == "__main__":
    main()
