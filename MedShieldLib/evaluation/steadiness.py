"""How steady targets are under nudges, which decides whether their families have any; see `families.py`.

Run as `python -m MedShieldLib.evaluation.steadiness DATA TARGET...` (minutes a target). DATA and the names of
targets are those of `medshield benchmark`, and the volumes those that it calibrates on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from MedShieldLib.evaluation.benchmark import load
from MedShieldLib.evaluation.heads import Role
from MedShieldLib.evaluation.split import heads_for
from MedShieldLib.families import asymmetry_spread
from MedShieldLib.study import exit_code
from MedShieldLib.symmetry import Symmetry


def line(name: str, data: Path) -> str:
    """What is found about one target.

    Raises:
        InputError: if the target or the volumes are not there.
    """
    target = load(name, data)
    heads = [head for head in heads_for(target.name, data) if head.role is not Role.TEST]
    spread = asymmetry_spread(target, [head.read() for head in heads])
    verdict = "nudges" if spread <= Symmetry.STEADY else "no nudges"
    return f"{target.name}: spread {spread:.3f} over {len(heads)} heads; {verdict} (up to {Symmetry.STEADY})"


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/, and models/ where targets need it")
    parser.add_argument("targets", nargs="+", help="by name, or JSON files")
    arguments = parser.parse_args()
    for name in arguments.targets:
        print(line(name, arguments.data), flush=True)


if __name__ == "__main__":
    sys.exit(main())
