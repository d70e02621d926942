"""How good the reference target is: Dice per tissue, on subjects that it was trained on and on others.

Run as `python -m MedShieldLib.training.validate DATA --work WORK` for leave-subjects-out figures; it resumes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from MedShieldLib.study import exit_code
from MedShieldLib.targets import window as windows
from MedShieldLib.targets.base import DifferentiableTarget
from MedShieldLib.targets.brain_tissue import STRUCTURES, load, load_robust, target_of
from MedShieldLib.training import command
from MedShieldLib.training.augment import brain
from MedShieldLib.training.data import MNI, Subject, load_subjects
from MedShieldLib.training.train import Progress, Recipe, train

FOLDS = 3


def dice_by_tissue(
    target: DifferentiableTarget, subject: Subject, stripped: bool = False
) -> dict[str, float]:
    """Dice per tissue against the subject's labels, on the network's grid, with or without the skull."""
    image = subject.image * brain(subject.labels, 1) if stripped else subject.image
    x = windows.apply(image, windows.Window().bounds(image))[None, None]
    with torch.inference_mode():
        answer = target.logits(x)[0].argmax(0)
    scores = {}
    for structure in STRUCTURES:
        a, b = answer == structure.value, subject.labels == structure.value
        scores[structure.name] = float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum())))
    return scores


def score(target: DifferentiableTarget, subject: Subject, **about: object) -> list[dict]:
    """A row with the skull and one without."""
    return [
        {"subject": subject.name, **about, "skull_stripped": s, **dice_by_tissue(target, subject, s)}
        for s in (False, True)
    ]


def left_out(
    subjects: list[Subject],
    work: Path,
    recipe: Recipe,
    folds: int = FOLDS,
    only: Sequence[int] = (),
    progress: Progress = lambda fraction, step: None,
) -> Iterator[tuple[int, list[Subject], DifferentiableTarget]]:
    """(fold, its heads, the target trained without them) for every fold; MNI152 stays in all trainings.

    Args:
        subjects: all heads.
        work: for checkpoints; what was trained there is not trained again.
        recipe: of each training.
        folds: into so many parts the heads are dealt.
        only: the folds to train, from 0; empty for all.
        progress: called as progress(fraction, step) within a fold.
    """
    heads = [s for s in subjects if s.name != MNI]
    for fold in only or range(folds):
        held_out = heads[fold::folds]
        names = {s.name for s in held_out}
        network = train([s for s in subjects if s.name not in names], work / f"fold{fold}", recipe, progress)
        yield fold, held_out, target_of(network, "")


def cross_validate(
    subjects: list[Subject],
    work: Path,
    recipe: Recipe,
    folds: int = FOLDS,
    progress: Progress = lambda fraction, step: None,
    only: Sequence[int] = (),
) -> list[dict]:
    """Leave-subjects-out: each head is scored by a network that was trained without it; see `left_out`.

    The rows are also in `work`/validation.json, anew after every fold.
    """
    rows = []
    for fold, held_out, target in left_out(subjects, work, recipe, folds, only, progress):
        for subject in held_out:
            rows += score(target, subject, fold=fold)
        (work / "validation.json").write_text(json.dumps(rows, indent=1))
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: a line per subject, with the skull / without, and the means."""
    names = [structure.name for structure in STRUCTURES]
    lines = ["| subject | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    subjects = dict.fromkeys(row["subject"] for row in rows)
    for subject in [*subjects, "mean"]:
        cells = []
        for name in names:
            pair = []
            for stripped in (False, True):
                of = [
                    r for r in rows if subject in (r["subject"], "mean") and r["skull_stripped"] == stripped
                ]
                pair.append(f"{sum(r[name] for r in of) / len(of):.3f}")
            cells.append(" / ".join(pair))
        lines.append(f"| {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@exit_code
def main() -> None:
    """Command line."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help="0 scores the shipped weights on all subjects"
    )
    parser.add_argument("--only", type=int, nargs="+", default=(), help="folds to run, from 0; default: all")
    parser.add_argument(
        "--robust", action="store_true", help="with --folds 0: score the weights of the robust twin instead"
    )
    arguments = parser.parse_args()
    if arguments.robust and arguments.folds:
        parser.error("--robust scores weights that are there; give --folds 0 with it.")
    subjects = load_subjects(arguments.data)
    recipe = Recipe() if arguments.iterations is None else Recipe().of_length(arguments.iterations)

    if arguments.folds:
        rows = cross_validate(subjects, arguments.work, recipe, arguments.folds, command.say, arguments.only)
    else:
        target = load_robust() if arguments.robust else load()
        rows = [row for subject in subjects for row in score(target, subject)]
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    sys.exit(main())
