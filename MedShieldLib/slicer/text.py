"""Translation of what the user reads: Slicer's where there is one, the text itself elsewhere.

The helpers of this package also run without Slicer (tests, the browser), where `slicer.i18n` is missing.
"""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:

    def _(text: str) -> str:
        """The text itself."""
        return text


__all__ = ["_"]
