"""What is installed is what is in the repository, with the versions that it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import MedShieldLib

ROOT = Path(MedShieldLib.__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
HEAVY = {"torch", "monai", "pywt", "matplotlib", "scipy.ndimage", "slicer", "qt", "trame"}


def tracked_files() -> list[str]:
    try:
        answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in answer.stdout.splitlines() if (ROOT / name).exists()]


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel of the tracked files alone, so that leftovers of other builds cannot slip in."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked_files():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "-w", folder, folder / "source"], check=True, timeout=300)
    return zipfile.ZipFile(next(folder.glob("medshield-*.whl")))


def test_wheel_holds_every_tracked_file_of_the_library(wheel):
    wanted = {name for name in tracked_files() if name.startswith("MedShieldLib/")}
    wanted = {name for name in wanted if Path(name).name != "CMakeLists.txt"}
    assert wanted <= set(wheel.namelist())


def test_wheel_brings_the_command_and_the_licence(wheel):
    names = wheel.namelist()
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert "medshield = MedShieldLib.cli:main" in wheel.read(entry_points).decode()
    assert any(name.endswith("LICENSE.txt") for name in names)


def test_version_is_the_same_everywhere(wheel):
    assert Path(wheel.filename).name.startswith(f"medshield-{MedShieldLib.__version__}-")
    assert f"\nversion: {MedShieldLib.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {MedShieldLib.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned_within_its_range(wheel):
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    required = re.findall(r"^Requires-Dist: (.*)$", wheel.read(metadata).decode(), re.MULTILINE)
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    extras = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split(",")
    for wanted in map(Requirement, required):
        extra = re.search(r'extra == "([^"]+)"', str(wanted.marker or ""))
        if extra is None or extra[1] in extras:
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


@pytest.mark.parametrize("module", ["", ".volume", ".result", ".cli", ".worker"])
def test_import_stays_light(module):
    answer = python(f"import sys, MedShieldLib{module}; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_command_line_without_a_library_names_it(library):
    answer = python(f"import sys; sys.modules[{library!r}] = None; from MedShieldLib.cli import main")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1 and f"pip install {library}" in answer.stderr


def test_command_works_without_extras(wheel):
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", wheel.read(metadata).decode(), re.MULTILINE)
    assert {"typer", "rich"} <= set(required)


def test_public_names_can_be_imported():
    for name in MedShieldLib.__all__:
        assert getattr(MedShieldLib, name) is not None
