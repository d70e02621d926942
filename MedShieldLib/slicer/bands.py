"""Heatmaps of one frequency band: computed beside the user interface when they are first asked for."""

from __future__ import annotations

import logging
import threading

from MedShieldLib.slicer.heatmap import Band, removed
from MedShieldLib.slicer.nodes import add_volume, volume_from_node
from MedShieldLib.slicer.results import Result
from MedShieldLib.slicer.text import _
from MedShieldLib.volume import Volume


class BandMaker:
    """Makes one band's heatmap at a time; the owner calls `collect` from a timer while it `is_busy`."""

    def __init__(self) -> None:
        self._wanted: tuple[Result, Band] | None = None
        self._made: Volume | None = None
        self._thread: threading.Thread | None = None
        self._failed: set[tuple[Result, Band]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a heatmap is being made, or is there to be collected."""
        return self._thread is not None

    def want(self, result: Result, band: Band) -> None:
        """Begin to make the heatmap of a band, unless one is being made or the volumes for it are gone."""
        source, reformed = result.node("input"), result.node("reformed")
        if self.is_busy or band is Band.VERDICT or source is None or reformed is None:
            return
        if (result, band) in self._failed:
            return
        self._wanted, self._made = (result, band), None
        volumes = volume_from_node(source), volume_from_node(reformed)
        self._thread = threading.Thread(target=self._make, args=(*volumes, band), daemon=True)
        self._thread.start()

    def collect(self) -> bool:
        """Bring a finished heatmap into the scene of its result; False while there is none."""
        if self._thread is None or self._thread.is_alive() or self._wanted is None:
            return False
        (result, band), self._thread = self._wanted, None
        if self._made is None:
            self._failed.add((result, band))
        source = result.node("input")  # None as well when the scene was closed
        if self._made is not None and source is not None and result.record.GetScene() is not None:
            name = _("{name} - {band}").format(name=source.GetName(), band=band.label().lower())
            result.put(band.role, add_volume(source.GetScene(), self._made, name))
        return True

    def _make(self, source: Volume, reformed: Volume, band: Band) -> None:
        try:
            self._made = removed(source, reformed, band)
        except Exception:
            logging.exception("MedShield could not compute the heatmap of a band")
