"""What Slicer's build would install: every file that git knows, where Slicer looks for it."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# The catalogue's schema 1.0.1 demands the first three and allows no others than these.
REQUIRED = {"$schema", "category", "scm_url"}
KNOWN = REQUIRED | {"scm_revision", "scm_type", "build_dependencies", "build_subdirectory", "enabled", "tier"}
MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")

pytestmark = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs the git checkout")


def list_files(*arguments):
    command = [sys.executable, str(REPOSITORY / "Testing" / "list_files.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The tree that Slicer would install, made by CMake with stand-ins for Slicer's macros."""
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    slicer = REPOSITORY / "Testing" / "cmake" / "slicer"
    for command in (
        ["cmake", "-S", REPOSITORY, "-B", build, f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON"],
        ["cmake", "--install", build, "--prefix", prefix],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return prefix / MODULES


def test_lists_name_every_file_that_git_knows():
    done = list_files("--check")
    assert done.returncode == 0, f"run `python Testing/list_files.py`: {done.stdout}"


def test_everything_is_installed_where_slicer_looks(installed):
    found = {str(f.relative_to(installed)) for f in installed.rglob("*") if f.is_file()}
    git = ["git", "-C", str(REPOSITORY), "ls-files", "MedShield", "MedShieldLib"]
    known = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    known = [name for name in known if (REPOSITORY / name).is_file() and not name.endswith("CMakeLists.txt")]
    assert found == {name.removeprefix("MedShield/") for name in known}


def test_only_the_module_itself_is_a_top_level_script(installed):
    assert [file.name for file in installed.glob("*.py")] == ["MedShield.py"]


def test_installed_library_can_be_imported(installed):
    code = "import MedShieldLib, sys; print(MedShieldLib.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=installed,
    )
    assert str(installed) in done.stdout


def test_catalogue_entry_has_what_the_index_asks_for():
    entry = json.loads((REPOSITORY / "MedShield.json").read_text("utf-8"))
    assert entry["category"] == "Segmentation" and entry["build_dependencies"] == ["PyTorch"]
    assert entry["scm_url"].endswith("/SlicerMedShield.git")
    assert REQUIRED <= set(entry) <= KNOWN
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["tier"] in (1, 3, 5) and entry["scm_url"].startswith("https://")
    project = re.search(r"project\((\w+)\)", (REPOSITORY / "CMakeLists.txt").read_text("utf-8"))
    assert project and (REPOSITORY / f"{project.group(1)}.json").is_file()


@pytest.mark.parametrize("icon", ["Resources/MedShield.png", "MedShield/Resources/Icons/MedShield.png"])
def test_icons_are_128_pixels_wide_and_high(icon):
    head = (REPOSITORY / icon).read_bytes()[:24]
    assert head.startswith(b"\x89PNG") and struct.unpack(">II", head[16:24]) == (128, 128)


def test_screenshots_of_the_catalogue_are_there():
    text = (REPOSITORY / "CMakeLists.txt").read_text("utf-8")
    urls = re.search(r'EXTENSION_SCREENSHOTURLS "([^"]*)"', text).group(1).split()
    assert urls
    for url in urls:
        assert (REPOSITORY / url.partition("/main/")[2]).is_file(), url
