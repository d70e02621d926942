"""Half precision in training, where the processor has it."""

from __future__ import annotations

import torch


def mixed() -> torch.autocast:
    """A context in which networks compute in bfloat16 if that is the faster way.

    Twice as fast on processors with AVX-512. Elsewhere it is emulated, and many times slower than float32.
    """
    native = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=native)
