"""Work on large arrays a few rows at a time: on all cores, in the cache, and without temporary copies.

A slab is a range of rows along the first axis. What is done to it is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

Answer = TypeVar("Answer")

# Voxels of a slab: with what is computed from it, it fits in the cache.
_VOXELS = 2**19


def workers() -> int:
    """How many threads to use: as many as torch, so that OMP_NUM_THREADS and the like hold for all."""
    return torch.get_num_threads()


def is_flat(x: np.ndarray) -> bool:
    """Whether all of (K, J, I) is one value, as in padding. Two corners tell quickly that noise is not."""
    return bool(x[0, 0, 0] == x[-1, -1, -1] and (x == x[0, 0, 0]).all())


def each(array: np.ndarray, work: Callable[[slice], Answer], axis: int = 0, least: int = 1) -> list[Answer]:
    """`work(rows)` for all slabs of an array, in threads; the answers in order.

    NumPy lets other threads run while it computes. `work` must not call torch, which has threads of its own.

    Args:
        array: only its shape is looked at.
        work: takes a slice of the axis; writes nothing outside of its own rows.
        axis: along which the array is cut.
        least: rows that a slab has at least, but for the last.
    """
    length = array.shape[axis]
    rows = max(least, _VOXELS * length // max(array.size, 1), 1)
    slabs = [slice(start, min(start + rows, length)) for start in range(0, length, rows)]
    if workers() == 1 or len(slabs) == 1:
        return [work(slab) for slab in slabs]
    with ThreadPoolExecutor(workers()) as pool:
        return list(pool.map(work, slabs))
