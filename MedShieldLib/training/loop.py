"""One cycle of training: seeded samples in, averaged weights out, resumable at any checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from MedShieldLib.errors import Cancelled
from MedShieldLib.stopwatch import duration

_LONGEST_GRADIENT = 5.0
# Samples that are made ready in the background.
_AHEAD = 3

Progress = Callable[[float, str], None]
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Cycle:
    """One cycle of the learning rate.

    Attributes:
        iterations: samples seen, one at a time.
        learning_rate: at its peak (one-cycle policy, Smith and Topin 2019).
        weight_decay: of AdamW.
        averaging: share of the running average of the weights that each iteration keeps.
        checkpoint_every: iterations.
    """

    iterations: int
    learning_rate: float
    weight_decay: float
    averaging: float
    checkpoint_every: int


def fit(
    network: torch.nn.Module,
    cycle: Cycle,
    make: Callable[[int], Sample],
    loss_of: Callable[[Sample], torch.Tensor],
    work: Path,
    progress: Progress = lambda fraction, step: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> torch.nn.Module:
    """Train `network`, which is in the mode that it shall have, with a checkpoint in `work`.

    Args:
        network: its weights change.
        cycle: how long and how fast.
        make: the sample of an iteration, a function of its number alone; called in a thread of its own.
        loss_of: a scalar that gradients flow through to the weights.
        work: a folder; a later call with the same one goes on there.
        progress: called after every iteration.
        cancelled: asked before every iteration.

    Returns:
        The average of the weights over the last few hundred steps: it answers more evenly.

    Raises:
        Cancelled: when `cancelled()` says so; the last checkpoint stays.
    """
    work.mkdir(parents=True, exist_ok=True)
    parts = _parts(network, cycle)
    first, began = _resume(work, parts), time.perf_counter()
    for iteration, sample in _ahead(make, range(first, cycle.iterations)):
        if cancelled():
            raise Cancelled
        loss = loss_of(sample)
        parts["optimizer"].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LONGEST_GRADIENT)
        parts["optimizer"].step()
        parts["schedule"].step()
        parts["averaged"].update_parameters(network)
        if (iteration + 1) % cycle.checkpoint_every == 0 or iteration + 1 == cycle.iterations:
            _checkpoint(work, parts, iteration + 1)
        done, each = iteration + 1, (time.perf_counter() - began) / (iteration + 1 - first)
        left = duration(each * (cycle.iterations - done))
        progress(done / cycle.iterations, f"iteration {done}, loss {loss.item():.3f} ({left} left)")
    return parts["averaged"].module


def _parts(network: torch.nn.Module, cycle: Cycle) -> dict[str, Any]:
    """All that a checkpoint holds."""
    optimizer = torch.optim.AdamW(network.parameters(), cycle.learning_rate, weight_decay=cycle.weight_decay)
    # A tenth of ten iterations would leave the rise no length, which the schedule divides by.
    rise = 0.1 if cycle.iterations > 10 else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, cycle.learning_rate, total_steps=cycle.iterations, pct_start=rise
    )
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(cycle.averaging)
    )
    return {"network": network, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}


def _ahead(make: Callable[[int], Sample], iterations: range) -> Iterator[tuple[int, Sample]]:
    """(iteration, sample) in order, the next ones prepared in the background."""
    # One thread: the random state of a sample is global in torch, so samples must not interleave.
    with ThreadPoolExecutor(1) as pool:
        queue = [pool.submit(make, n) for n in iterations[:_AHEAD]]
        for iteration in iterations:
            yield iteration, queue.pop(0).result()
            if iteration + _AHEAD < iterations.stop:
                queue.append(pool.submit(make, iteration + _AHEAD))


def _checkpoint(work: Path, parts: dict[str, Any], iteration: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()} | {"iteration": iteration}
    torch.save(state, work / "checkpoint.tmp")
    os.replace(work / "checkpoint.tmp", work / "checkpoint.pt")


def _resume(work: Path, parts: dict[str, Any]) -> int:
    path = work / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)  # our own file, and still no unpickling of objects
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["iteration"]
