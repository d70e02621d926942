"""The headline figures: the reference target attacked, and the shield's answer, on heads never seen before.

Run as `python -m MedShieldLib.evaluation.headline DATA`, DATA holding volumes/. Attacked volumes are kept in
a work folder, so that a second run only checks. The benchmark proper is in `benchmark.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from MedShieldLib.attacks import load_attack
from MedShieldLib.attacks.base import Attack
from MedShieldLib.evaluation.metrics import mean_dice
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.shield import Shield
from MedShieldLib.study import exit_code
from MedShieldLib.targets import DifferentiableTarget, load_target
from MedShieldLib.volume import Volume

# Used neither to train nor to calibrate the reference target.
HELD_OUT = ("trio_b17_mprage", "nichart_IXI012-HH-1211_T1")
EPS = 8 / 255


@dataclass(frozen=True)
class Finding:
    """One head before and after the attack; Dice is the mean of the tissues against the clean answer.

    Attributes:
        clean, attacked: the two checks.
        attacked_dice: of the target's answer to the attacked volume.
        defended_dice: of what the shield recommends for the attacked volume.
        untouched: whether the clean volume got the target's own answer, bit for bit.
        attack_s, check_s: seconds; the attack's is 0 where it was kept from an earlier run.
    """

    head: str
    clean: CheckResult
    attacked: CheckResult
    attacked_dice: float
    defended_dice: float
    untouched: bool
    attack_s: float
    check_s: float


def examine(shield: Shield, attack: Attack, head: Path, work: Path, eps: float, seed: int) -> Finding:
    """Check a head, attack it through the shield's target, and check it again."""
    volume = Volume.read(head)
    clean = shield.check_and_segment(volume)
    began = time.perf_counter()
    target = cast(DifferentiableTarget, shield.target)
    attacked = attacked_volume(target, attack, volume, work, eps, seed)
    attack_s = time.perf_counter() - began
    began = time.perf_counter()
    after = shield.check_and_segment(attacked)
    return Finding(
        head=head.name.partition(".")[0],
        clean=clean,
        attacked=after,
        attacked_dice=mean_dice(after.original, clean.original),
        defended_dice=mean_dice(after.defended, clean.original),
        untouched=bool((clean.defended.labels == clean.original.labels).all()),
        attack_s=attack_s,
        check_s=time.perf_counter() - began,
    )


def attacked_volume(
    target: DifferentiableTarget, attack: Attack, volume: Volume, work: Path, eps: float, seed: int
) -> Volume:
    """The attacked volume, from `work` if the same attack on the same weights left it there."""
    case = f"{target.name} {target.sha256} {volume.sha256()} {attack} {eps} {seed}"
    path = work / f"{hashlib.sha256(case.encode()).hexdigest()[:16]}.nrrd"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        attack(target, volume, eps, seed=seed).volume.write(path)
    return Volume.read(path)


HEADINGS = (
    f"{'':<26} {'clean volume':^36} {'attacked volume':^46}",
    f"{'head':<26} {'verdict':<20} {'p':>6} {'own answer':>10} "
    f"{'Dice':>6} {'verdict':<20} {'p':>6} {'defended':>8} {'check s':>8} {'attack s':>8}",
)


def row(found: Finding) -> str:
    """One line of the table."""
    clean, attacked = found.clean, found.attacked
    return (
        f"{found.head:<26} {clean.verdict.value:<20} {clean.p_attack:>6.3f} "
        f"{'yes' if found.untouched else 'no':>10} {found.attacked_dice:>6.3f} {attacked.verdict.value:<20} "
        f"{attacked.p_attack:>6.3f} {found.defended_dice:>8.3f} {found.check_s:>8.1f} {found.attack_s:>8.1f}"
    )


def summary(findings: list[Finding]) -> str:
    """How many heads meet each of the goals."""
    goals = {
        "attacked Dice < .5": [f.attacked_dice < 0.5 for f in findings],
        "attacked is a suspected attack": [f.attacked.verdict is Verdict.SUSPECTED_ATTACK for f in findings],
        "clean is clean, its answer untouched": [
            f.clean.verdict is Verdict.CLEAN and f.untouched for f in findings
        ],
        "defended Dice >= .90": [f.defended_dice >= 0.9 for f in findings],
    }
    return "\n".join(f"{name}: {sum(met)} of {len(met)}" for name, met in goals.items())


@exit_code
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with volumes/")
    parser.add_argument("--heads", nargs="+", default=HELD_OUT, help="file names without .nii.gz")
    parser.add_argument("--work", type=Path, default=Path("work/headline"), help="keeps the attacked volumes")
    parser.add_argument("--steps", type=int, help="of the attack; default: its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calibration", type=Path, help="default: the one that ships")
    arguments = parser.parse_args()
    attack = load_attack("pgd", **({"steps": arguments.steps} if arguments.steps else {}))
    shield = Shield.for_target(load_target("brain-tissue"), arguments.calibration, seed=arguments.seed)
    print(f"{attack}\neps {EPS * 255:g}/255, seed {arguments.seed}, weights {shield.target.sha256[:12]}\n")
    print("\n".join(HEADINGS), flush=True)
    findings = []
    for head in arguments.heads:
        path = arguments.data / "volumes" / f"{head}.nii.gz"
        findings.append(examine(shield, attack, path, arguments.work, EPS, arguments.seed))
        print(row(findings[-1]), flush=True)
    print(f"\n{summary(findings)}")


if __name__ == "__main__":
    sys.exit(main())
