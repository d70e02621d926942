"""The reference target's training as one job: on all subjects, then leave-subjects-out by the same recipe."""

from __future__ import annotations

from pathlib import Path

from MedShieldLib.training import command
from MedShieldLib.training.data import load_subjects
from MedShieldLib.training.train import Progress, Recipe, train
from MedShieldLib.training.validate import FOLDS, cross_validate


def train_and_validate(
    data: Path,
    work: Path,
    weights: Path,
    recipe: Recipe,
    folds: int = FOLDS,
    progress: Progress = lambda fraction, step: None,
) -> list[dict]:
    """Train on all subjects and write `weights`; then cross-validate. Returns the rows of validation.

    Args:
        data: see `load_subjects`.
        work: for checkpoints; what was trained there is not trained again.
        weights: the file to write.
        recipe: of all trainings.
        folds: into so many parts the heads are dealt; 0 validates nothing.
        progress: called as progress(fraction, step) within each training.

    Raises:
        InputError: if the folder holds no labelled heads.
    """
    subjects = load_subjects(data)
    command.save(train(subjects, work / "all", recipe, progress), weights)
    return cross_validate(subjects, work, recipe, folds, progress) if folds else []
