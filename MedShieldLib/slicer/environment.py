"""The packages that a check needs: what is there, what is missing, installing and removing after asking.

Only on the user's click. PyTorch comes through the PyTorch extension; nothing that is there already is
replaced, unless it is too old for MedShield itself.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import tempfile
from importlib import metadata
from pathlib import Path

from MedShieldLib import __version__
from MedShieldLib.errors import InputError
from MedShieldLib.slicer.text import _

_NAME = "MedShield"
_TORCH = ">=2.4"
_SHOWN = ("torch", "numpy", "scipy", "SimpleITK", "vtk", "monai", "PyWavelets", "safetensors", "deepbet")
# What is installed only when it is first used.
DEEPBET = ("deepbet>=1.0",)
DICOM_SEG = ("pydicom>=3", "highdicom>=0.24")


def versions() -> dict[str, str]:
    """Name -> version of what matters to a check; "" for what is not installed."""
    own = {_NAME: __version__, "Python": platform.python_version()}
    return own | {name: _version(name) for name in (*_SHOWN, "pydicom", "highdicom")}


def device() -> str:
    """What the targets compute on, for the user; PyTorch is too slow to load just to ask it for a GPU."""
    return _("CUDA GPU where PyTorch finds one, else CPU with {count} cores").format(
        count=os.cpu_count() or 1
    )


def read_requirements(file: str | Path) -> list[str]:
    """The requirements of a requirements.txt, one a line."""
    lines = (line.partition("#")[0].strip() for line in Path(file).read_text("utf-8").splitlines())
    return [line for line in lines if line]


def missing(requirements: list[str]) -> list[str]:
    """Those that no installed package satisfies, and PyTorch if it is not there."""
    absent = [] if importlib.util.find_spec("torch") else ["torch" + _TORCH]
    return absent + [requirement for requirement in requirements if not _satisfied(requirement)]


def removable(names: list[str]) -> list[str]:
    """Those packages of `names` that are installed."""
    return [name for name in names if _version(name)]


def ensure(requirements: list[str]) -> list[str]:
    """Install what is missing, after asking.

    Returns:
        Names of the packages that were not there before, without PyTorch (it may have other users).

    Raises:
        InputError: if the user declines, the PyTorch extension is missing, or the installation fails.
    """
    if not missing(requirements):
        return []
    _ensure_torch()
    wanted = [_name(requirement) for requirement in missing(requirements)]
    absent = [name for name in wanted if not _version(name)]
    import slicer.packaging

    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(_pins(wanted)) + "\n", "utf-8")
        try:
            slicer.packaging.pip_ensure(requirements, constraints=constraints, requester=_NAME)
        except Exception as error:  # declined (RuntimeError), no network, or a conflict
            raise InputError(_("The packages were not installed: {error}").format(error=error)) from error
    still = missing(requirements)
    if still:
        raise InputError(_("These packages are still missing: {names}.").format(names=", ".join(still)))
    return [name for name in absent if _version(name)]


def remove(names: list[str]) -> None:
    """Uninstall packages; the caller has asked."""
    import slicer.packaging

    slicer.packaging.pip_uninstall(removable(names))


def _ensure_torch() -> None:
    if importlib.util.find_spec("torch"):
        return
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InputError(
            _("PyTorch is missing: install the PyTorch extension with the Extensions Manager and restart.")
        ) from error
    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
        askConfirmation=True, torchVersionRequirement=_TORCH
    )
    if torch is None:
        raise InputError(_("PyTorch was not installed; a check needs it."))


def _pins(wanted: list[str]) -> list[str]:
    """Keep pip from replacing whatever is there already, but for the packages that have to be newer."""
    free = {_plain(name) for name in wanted}
    there = {_plain(one.metadata["Name"] or ""): one.version for one in metadata.distributions()}
    pins = (f"{name}=={version}" for name, version in sorted(there.items()) if name not in free)
    return [pin for pin in pins if _is_requirement(pin)]  # one that pip cannot read would stop it


def _is_requirement(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return bool(Requirement(text))
    except InvalidRequirement:
        return False


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _satisfied(requirement: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    installed = _version(wanted.name)
    return bool(installed) and wanted.specifier.contains(installed, prereleases=True)


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
