"""What the panel does: jobs, the result on show, the views. MRML only; the panel adds the widgets.

One session belongs to one scene. It holds no state that the scene could hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedShieldLib.slicer import heatmap as heatmaps
from MedShieldLib.slicer.bands import BandMaker
from MedShieldLib.slicer.check import CalibrationJob, CheckJob, Job, Settings, Watch
from MedShieldLib.slicer.disagreement import add_difference, labels_of, largest_disagreement
from MedShieldLib.slicer.export import comes_from_dicom
from MedShieldLib.slicer.layouts import ComparisonLayout, Shown
from MedShieldLib.slicer.nodes import world_position
from MedShieldLib.slicer.presenter import Situation, sides_differ
from MedShieldLib.slicer.results import Result, results_of
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLApplicationLogic, vtkMRMLScalarVolumeNode, vtkMRMLScene

_ROLES = ("input", "original", "defended", "reformed", "heatmap", "spectrum", "report")


class Session:
    """The jobs and the result on show of one panel.

    Args:
        scene: where volumes come from and results go.
        application: Slicer's application logic, for the views.
        temporary: folder for the files of a job.
    """

    def __init__(
        self, scene: vtkMRMLScene, application: vtkMRMLApplicationLogic, temporary: str | None = None
    ) -> None:
        self._scene, self._temporary = scene, temporary
        self._job: Job | None = None
        self._bands = BandMaker()
        self.views = ComparisonLayout(scene, application)
        self.result: Result | None = None

    @property
    def job(self) -> Job | None:
        """The job that runs, if one does."""
        return self._job if self._job and not self._job.is_over else None

    def check(self, source: vtkMRMLScalarVolumeNode, settings: Settings, watch: Watch) -> None:
        """Start a check.

        Raises:
            InputError: if the volume cannot be checked.
        """
        self._job = CheckJob(source, settings, watch, self._temporary)

    def calibrate(self, clean: Path, file: Path, settings: Settings, watch: Watch) -> None:
        """Start a calibration on a folder of clean volumes."""
        self._job = CalibrationJob(clean, file, settings, watch)

    def check_and_wait(
        self, source: vtkMRMLScalarVolumeNode, settings: Settings, watch: Watch, wait: Callable[[], None]
    ) -> Result | None:
        """Check a volume to the end and show its result; calls `wait` in between. None if there is no result.

        Raises:
            InputError: if the volume cannot be checked.
        """
        self.check(source, settings, watch)
        while self.job:
            wait()
            self.poll()
        job = self._job
        return job.result if isinstance(job, CheckJob) else None

    @property
    def is_busy(self) -> bool:
        """Whether `poll` has something to do."""
        return self.job is not None or self._bands.is_busy

    @property
    def is_drawing(self) -> bool:
        """Whether a heatmap is being computed."""
        return self._bands.is_busy

    def poll(self) -> bool:
        """Take the running job further; True when a heatmap is there that was asked for."""
        if self.job:
            self.job.poll()
        return self._bands.collect()

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self.job:
            self.job.cancel()

    def kill(self, reason: str) -> None:
        """Stop the running job now."""
        if self.job:
            self.job.kill(reason)

    def choose(self, source: vtkMRMLScalarVolumeNode | None) -> bool:
        """Show the latest result of a volume; True if that is another one than before."""
        found = results_of(source)
        latest = found[-1] if found else None
        changed = latest != self.result
        self.result = latest
        if changed and self.views.is_shown:
            self.compare(latest is not None)
        return changed

    def compare(self, on: bool) -> None:
        """Arrange the views for comparison, or as they were before."""
        if on and self.result:
            self.views.show(
                Shown(*(self.result.node(r) for r in ("input", "original", "defended", "spectrum")))
            )
        else:
            self.views.restore(self.result.node("defended") if self.result else None)

    def show_heatmap(self, visible: bool, band: heatmaps.Band, opacity: float, threshold: float) -> None:
        """Lay the heatmap of a band over the scan in the comparison views, as soon as it is computed."""
        if not self.views.is_shown:
            return
        node = self.result.node(band.role) if visible and self.result else None
        if node:
            heatmaps.style(node, threshold)
        elif visible and self.result:
            self._bands.want(self.result, band)
        self.views.set_foreground(node, opacity, band.label())

    def show_difference(self, visible: bool) -> None:
        """Show, on both sides, what only one side segments; computed when first asked for."""
        if self.result is None:
            return
        node = self.result.node("difference")
        original, defended, grid = (self.result.node(role) for role in ("original", "defended", "input"))
        if visible and node is None and original and defended and grid:
            name = _("{name} - differences").format(name=grid.GetName())
            node = add_difference(self._scene, original, defended, grid, name)
            self.result.put("difference", node)
        if node:
            self.views.restrict(node)
            node.GetDisplayNode().SetVisibility(visible)

    def jump(self, label: int | None = None) -> bool:
        """Go where the sides differ most, for one structure or over all; False if they do not."""
        if self.result is None:
            return False
        original, defended, grid = (self.result.node(role) for role in ("original", "defended", "input"))
        if not (original and defended and grid):
            return False
        voxel = largest_disagreement(*labels_of(original, defended, grid), label)
        if voxel is None:
            return False
        self.views.jump_to(world_position(grid, voxel))
        return True

    def situation(
        self, source: vtkMRMLScalarVolumeNode | None, database: object | None, **known: Any
    ) -> Situation:
        """What decides which controls can be used; `known` is what only the panel knows."""
        job, result = self.job, self.result
        return Situation(
            has_input=source is not None,
            checking=isinstance(job, CheckJob),
            calibrating=isinstance(job, CalibrationJob),
            stopping=job is not None and job.is_stopping,
            has_result=result is not None,
            parts=frozenset(role for role in _ROLES if result.node(role)) if result else frozenset(),
            differs=result is not None and sides_differ(result.data),
            comparing=self.views.is_shown,
            from_dicom=comes_from_dicom(source, database),
            can_compare=self.views.is_possible,
            **known,
        )
