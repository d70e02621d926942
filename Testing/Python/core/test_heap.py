"""Memory that is freed serves the next array: fewer pages are taken from the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from MedShieldLib import heap
if "keep" in sys.argv:
    assert heap.keep_for_reuse()
torch.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):  # the heap grows for the first eight or so, and then no more
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, which is left as it is")
def test_freed_pages_are_used_again() -> None:
    def faults(*arguments: str) -> int:
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
        )
        return int(run.stdout)

    assert faults("keep") < 0.5 * faults()
