"""The caller's lifeline: a pipe as standard input that the caller holds open as long as it wants the job.

The system closes it when the caller is killed, on Linux, macOS and Windows alike. The id of the parent
process would not tell: Windows never changes it, and Slicer starts Python through a launcher, which may live
on.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable

# A standard input that is at its end from the start mostly never was a lifeline.
_GRACE_S = 0.5


class Lifeline:
    """Takes the standard input for itself: whoever else reads there finds nothing.

    Must be made before any large library is loaded. Windows lets nobody look at a pipe while a thread waits
    to read from it, and a library that looks at the standard input when it is loaded would hang, as one of
    NumPy's does (github.com/numpy/numpy/issues/24290).
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._pipe = _take_standard_input()

    def watch(self, cut: Callable[[], None], is_held: bool = False) -> None:
        """Call `cut` when the caller lets go; never for a terminal, a file or /dev/null.

        Args:
            cut: called from another thread.
            is_held: the caller surely holds the other end, so that even an early end counts.
        """
        if self._pipe is not None:
            threading.Thread(target=self._wait, args=(self._pipe, cut, is_held), daemon=True).start()

    def _wait(self, pipe: int, cut: Callable[[], None], is_held: bool) -> None:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while os.read(pipe, 4096):
                pass
        if is_held or time.monotonic() - begin > _GRACE_S:
            self.is_cut = True
            cut()


def _take_standard_input() -> int | None:
    """A copy of the standard input if that is a pipe, with nothing left in its place."""
    try:
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            return None
        pipe = os.dup(0)
    except OSError:  # closed
        return None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe
