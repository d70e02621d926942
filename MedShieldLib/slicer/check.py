"""What a click starts: a check or a calibration in a worker process, up to its result in the scene.

No Qt: the panel calls `poll` from a timer and is told what happens through `Watch`. The scene changes only at
the very end, when a whole result is there.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vtk

from MedShieldLib import effort
from MedShieldLib.errors import InputError
from MedShieldLib.result import CheckResult, Verdict
from MedShieldLib.slicer.nodes import volume_from_node
from MedShieldLib.slicer.process import State, WorkerProcess, worker_command
from MedShieldLib.slicer.results import Result, add_result
from MedShieldLib.slicer.text import _

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

    from MedShieldLib.volume import Volume

_VERDICT_CODES = {verdict.exit_code for verdict in Verdict}
_INPUT_ERROR = 2
_CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "-1"}
_LOADING = 0.95


class Device(Enum):
    """Where the target runs."""

    AUTOMATIC = "automatic"
    CPU = "cpu"

    def label(self) -> str:
        """Name for the user."""
        return _("Automatic") if self is Device.AUTOMATIC else _("CPU")


class Ending(Enum):
    """How a job ended."""

    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class Settings:
    """What the panel's controls say.

    `target` is a built-in name or a JSON file, `calibration` a file or empty for the one that ships, `seed` 0
    for fresh random versions in every check. `versions` is how many reformed versions are compared; from
    `effort.ALL` on it is all that the calibration has. `second_opinion` is another target that is asked as
    well, or empty.
    """

    target: str
    calibration: str = ""
    alpha: float = 0.05
    seed: int = 0
    versions: int = effort.ALL
    device: Device = Device.AUTOMATIC
    keep_files: bool = False
    second_opinion: str = ""

    def models(self) -> list[str]:
        """As options of any worker."""
        given = ["--target", self.target]
        return given + (["--second-opinion", self.second_opinion] if self.second_opinion else [])

    def options(self) -> list[str]:
        """As options of the worker's `check`."""
        given = [*self.models(), "--alpha", str(self.alpha)]
        given += ["--calibration", self.calibration] if self.calibration else []
        given += ["--seed", str(self.seed)] if self.seed else []
        return given + (["--versions", str(self.versions)] if self.versions < effort.ALL else [])


@dataclass(frozen=True)
class Watch:
    """Whom a job tells what happens: progress(fraction, step), log(line), and ended(ending, message) once."""

    progress: Callable[[float, str], None]
    log: Callable[[str], None]
    ended: Callable[[Ending, str], None]


class Job:
    """A worker run: follows it, explains how it ended, and clears up.

    Args:
        arguments: of the worker.
        device: CPU keeps the worker away from a GPU; AUTOMATIC falls back when the GPU's memory is too small.
        watch: is told what happens.
        folder: for the job's files; removed at the end unless `keep_files`.
    """

    def __init__(
        self, arguments: list[object], device: Device, watch: Watch, folder: Path, keep_files: bool = False
    ) -> None:
        self._arguments, self._device, self._watch = arguments, device, watch
        self._folder, self._keep_files = folder, keep_files
        self._error, self._over = "", False
        self._worker = self._launch()

    @property
    def is_over(self) -> bool:
        """Whether the job has ended and said so."""
        return self._over

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop and has not yet."""
        return self._worker.state is State.CANCELLING and not self._over

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._worker.pid

    def poll(self) -> None:
        """Take the job one step further; never blocks for long."""
        if not self._over and self._worker.poll().is_over:
            self._conclude()

    def cancel(self) -> None:
        """Ask the job to stop; `ended` follows from a later `poll`."""
        self._worker.cancel()

    def kill(self, reason: str) -> None:
        """Stop now, and say why."""
        if not self._over:
            self._worker.kill()
            self._end(Ending.CANCELLED, reason)

    def _launch(self) -> WorkerProcess:
        environment = _CPU_ONLY if self._device is Device.CPU else {}
        return WorkerProcess(worker_command(*self._arguments), self._folder, self._on_event, environment)

    def _on_event(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "progress":
            self._watch.progress(_LOADING * float(event["fraction"]), str(event["step"]))
        elif kind == "log":
            self._watch.log(str(event["message"]))
        elif kind == "error":
            self._error = str(event["message"])

    def _conclude(self) -> None:
        worker = self._worker
        if worker.state is State.CANCELLED:
            self._end(Ending.CANCELLED, _("Cancelled; nothing was changed."))
        elif worker.state is State.FINISHED and worker.exit_code in _VERDICT_CODES:
            self._succeed()
        elif self._gpu_is_full():
            self._watch.log(_("The GPU has too little free memory; trying again on the CPU."))
            self._device, self._error = Device.CPU, ""
            self._worker = self._launch()
        else:
            self._end(Ending.FAILED, self._what_went_wrong())

    def _succeed(self) -> None:
        self._end(Ending.DONE, _("Done."))

    def _gpu_is_full(self) -> bool:
        words = f"{self._error} {self._worker.last_words()}".lower()
        return self._device is Device.AUTOMATIC and "out of memory" in words and "cuda" in words

    def _what_went_wrong(self) -> str:
        worker = self._worker
        if worker.state is State.CRASHED or not self._error:
            self._watch.log(worker.last_words())
            return _(
                "The worker process ended unexpectedly (code {code}), perhaps for want of memory; "
                "nothing was changed. See the log."
            ).format(code=worker.exit_code)
        if worker.exit_code == _INPUT_ERROR:
            return self._error
        self._watch.log(worker.last_words())
        return _("This failed: {error} Nothing was changed; see the log.").format(error=self._error)

    def _end(self, ending: Ending, message: str) -> None:
        self._over = True
        if self._keep_files:
            self._watch.log(_("Files of this run: {folder}").format(folder=self._folder))
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._watch.ended(ending, message)


class CheckJob(Job):
    """A check of one volume node; its result comes into the scene at the end.

    Args:
        source: the volume to check.
        settings: what to check it with.
        watch: is told what happens.
        temporary: where to make the folder for the job's files.

    Raises:
        InputError: if the volume cannot be checked; nothing is started then.
    """

    def __init__(
        self, source: vtkMRMLScalarVolumeNode, settings: Settings, watch: Watch, temporary: str | None = None
    ) -> None:
        volume = volume_from_node(source)
        volume.require_checkable()
        self.result: Result | None = None
        self._source = source
        self._observers: list[tuple[vtk.vtkObject, int]] = []
        self._loader: threading.Thread | None = None
        self._loaded: tuple[CheckResult, str, str] | Exception | None = None
        folder = Path(tempfile.mkdtemp(prefix="MedShield-", dir=temporary))
        self._out = folder / "result"
        arguments = ["check", folder / "input.nrrd", *settings.options(), "--out", self._out]
        if not settings.keep_files:
            arguments += ["--scratch", folder]  # should Slicer be killed, the worker clears up
        try:
            _hand_over(volume, folder / "input.nrrd")
            super().__init__(arguments, settings.device, watch, folder, settings.keep_files)
        except BaseException:  # no room for the volume, or no process: leave no patient's scan behind
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._observe(source)

    def poll(self) -> None:
        """Take the job one step further; never blocks for long."""
        if self._loader is None:
            super().poll()
        elif not self._loader.is_alive() and not self._over:
            self._bring_in()

    def cancel(self) -> None:
        """Ask the job to stop, before or while its result is read."""
        if self._loader is None:
            super().cancel()
        else:
            self._end(Ending.CANCELLED, _("Cancelled; nothing was changed."))

    def _succeed(self) -> None:
        """Read the files beside the user interface: a large scan takes seconds."""
        self._watch.progress(_LOADING, _("Loading the results"))
        self._loader = threading.Thread(target=self._read, daemon=True)
        self._loader.start()

    def _read(self) -> None:
        from MedShieldLib.export.folder import load_result

        try:
            record, report = self._out / "result.json", self._out / "report.html"
            html = report.read_text("utf-8") if report.is_file() else ""
            self._loaded = (load_result(self._out), record.read_text("utf-8"), html)
        except Exception as error:  # told in the main thread
            self._loaded = error

    def _bring_in(self) -> None:
        ending, message = Ending.DONE, ""
        try:
            if not isinstance(self._loaded, tuple):
                raise self._loaded or RuntimeError("nothing was read")
            result, record, report = self._loaded
            self.result = add_result(result, record, report, self._source)
            message = _summary(result)
        except Exception as error:
            ending = Ending.FAILED
            message = _("The results could not be loaded, nothing was changed: {error}").format(error=error)
        self._end(ending, message)

    def _observe(self, source: vtkMRMLScalarVolumeNode) -> None:
        scene = source.GetScene()

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(_caller: object, _event: str, node: object) -> None:
            if node is source:
                self.kill(_("The volume was deleted, so its check was stopped."))

        def closed(_caller: object, _event: str) -> None:
            self.kill(_("The scene was closed, so the check was stopped."))

        self._observers = [
            (scene, scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removed)),
            (scene, scene.AddObserver(scene.StartCloseEvent, closed)),
        ]

    def _end(self, ending: Ending, message: str) -> None:
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        self._observers = []
        super()._end(ending, message)


class CalibrationJob(Job):
    """A calibration of a target on a folder of clean volumes; its file is `file`, replaced if it exists."""

    def __init__(self, clean: Path, file: Path, settings: Settings, watch: Watch) -> None:
        self.file = file
        arguments = ["calibrate", clean, *settings.models(), "--out", file, "--force"]
        folder = Path(tempfile.mkdtemp(prefix="MedShield-"))
        super().__init__(arguments, settings.device, watch, folder)

    def _succeed(self) -> None:
        self._end(Ending.DONE, _("Calibrated; the file is {file}.").format(file=self.file))


def _hand_over(volume: Volume, file: Path) -> None:
    """Write the worker's input, without the compression that would hold up the user interface for seconds."""
    import SimpleITK as sitk

    try:
        sitk.WriteImage(volume.to_sitk(), str(file), useCompression=False)
    except RuntimeError as error:
        message = _("The temporary folder {folder} has no room for the volume, or cannot be written.")
        raise InputError(message.format(folder=file.parent.parent)) from error


def _summary(result: CheckResult) -> str:
    seconds = result.timings_s.get("total", 0.0)
    return _("Checked in {seconds:.0f} s.").format(seconds=seconds)
