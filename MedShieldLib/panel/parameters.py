"""What the panel's controls say, kept in the scene.

Annotations are not postponed here, because the parameter node wrapper reads them.
"""

from collections.abc import Callable
from typing import Annotated, Any

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from MedShieldLib import effort
from MedShieldLib.slicer.check import Device, Settings
from MedShieldLib.slicer.heatmap import Band
from MedShieldLib.slicer.text import _


@parameterNodeWrapper
class MedShieldParameterNode:
    """The controls' values; names are those of SlicerParameterName in the .ui file."""

    inputVolume: vtkMRMLScalarVolumeNode
    target: str = "brain-tissue"
    calibration: str = ""
    secondOpinion: str = ""
    alpha: Annotated[float, WithinRange(0.001, 0.5)] = 0.05
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    device: Device = Device.AUTOMATIC
    versions: Annotated[int, WithinRange(effort.QUICK, effort.ALL)] = effort.ALL
    keepFiles: bool = False
    showHeatmap: bool = True
    band: Band = Band.VERDICT
    heatmapOpacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.6
    heatmapThreshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.15


def parameters_of(node: Any, log: Callable[[str], None]) -> Any:
    """The controls' values that a node of the scene holds.

    A scene that another version has saved may hold what means nothing here. Slicer cannot wrap a node with an
    unknown name in it, and takes over a number that is out of range; so both give way to the default first.

    Args:
        node: from the scene.
        log: is told of every value that was not taken over.
    """
    wrapper: Any = MedShieldParameterNode
    for name, info in wrapper.allParameters.items():
        if info.serializer.isIn(node, name):
            try:
                info.serializer.validate(info.serializer.read(node, name))
            except (ValueError, TypeError) as error:
                message = _("The saved setting '{name}' is replaced by its default: {error}")
                log(message.format(name=name, error=error))
                info.serializer.remove(node, name)
    return wrapper(node)


def settings_of(values: Any) -> Settings:
    """What the controls say, for a job."""
    return Settings(
        values.target,
        values.calibration,
        values.alpha,
        values.seed,
        values.versions,
        values.device,
        values.keepFiles,
        values.secondOpinion,
    )


def bind(values: Any, ui: Any) -> int:
    """Bind the panel's widgets to their parameters; returns the tag for `disconnectGui`.

    `connectGui` binds them as well, but not every Slicer returns the tag. Without it they stay bound to the
    old wrapper: the next one resets its lists, and Slicer crashes when Python collects it.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    tag: int = values.connectParametersToGui({name: widget for name, widget in named.items() if name})
    return tag
