"""How the command lines of studies and trainings end."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from MedShieldLib.errors import InputError


def exit_code(main: Callable[[], None]) -> Callable[[], int]:
    """`main` with its exit code: 0, or 2 after input that cannot be used, and then its sentence on stderr."""

    @functools.wraps(main)
    def ended() -> int:
        try:
            main()
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    return ended
