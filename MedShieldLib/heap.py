"""The C library's heap, told to keep what is freed for the next array.

By default glibc asks the system for every large array anew and gives it back at once, and the system
fills each page with zeros first, which takes a good part of a check's time. For processes of our own
only; a library must not decide this for others.
"""

from __future__ import annotations

import ctypes
import sys

# The names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger arrays are still given back at once: those of large volumes would hold too much.
_LARGEST_KEPT = 2**28
_KEPT_IN_ALL = 2**30


def keep_for_reuse() -> bool:
    """Whether it worked; other systems and other C libraries stay as they are."""
    if not sys.platform.startswith("linux"):
        return False
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is None:
        return False
    kept = adjust(_M_MMAP_THRESHOLD, _LARGEST_KEPT), adjust(_M_TRIM_THRESHOLD, _KEPT_IN_ALL)
    return all(kept)
