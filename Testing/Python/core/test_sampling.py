"""Evenly spaced samples of large arrays."""

from __future__ import annotations

import numpy as np
import pytest

from MedShieldLib import sampling


@pytest.mark.parametrize("shape", [(40, 50, 60), (256, 256, 256), (512, 512, 600)])
@pytest.mark.parametrize("most", [1000, 2**18, 2**22])
def test_a_step_leaves_about_as_many_as_wanted_or_all(shape: tuple[int, int, int], most: int) -> None:
    size = int(np.prod(shape))
    step = sampling.step(size, most)
    left = np.prod([len(range(0, n, step)) for n in shape])
    assert step == 1 and left == size < 3.4 * most or 0.3 * most < left < 3.4 * most
