"""Writes the file lists of MedShield/CMakeLists.txt and MedShieldLib/CMakeLists.txt from what git knows.

python Testing/list_files.py           after a file came or went (git add new ones first)
python Testing/list_files.py --check   says which list is out of date, and changes nothing
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Folder -> CMake variables of its Python files and of everything else.
LISTS = {
    "MedShield": ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"),
    "MedShieldLib": ("LIBRARY_PYTHON_SCRIPTS", "LIBRARY_RESOURCES"),
}


def files_of(folder: str) -> list[str]:
    """The files of a folder that git knows, relative to it, without its CMakeLists.txt."""
    command = ["git", "-C", str(REPOSITORY / folder), "ls-files"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(n for n in names if n != "CMakeLists.txt" and (REPOSITORY / folder / n).is_file())


def with_lists(folder: str) -> str:
    """The text of a folder's CMakeLists.txt with the lists that git implies."""
    text = (REPOSITORY / folder / "CMakeLists.txt").read_text("utf-8")
    files = files_of(folder)
    scripts = [f for f in files if f.endswith(".py")]
    others = [f for f in files if not f.endswith(".py")]
    for variable, names in zip(LISTS[folder], (scripts, others), strict=True):
        block = "".join(f"  {name}\n" for name in names)
        text = re.sub(rf"(set\({variable}\n).*?(  \)\n)", rf"\g<1>{block}\g<2>", text, flags=re.DOTALL)
    return text


def main() -> int:
    """Update the lists, or check them."""
    stale = []
    for folder in LISTS:
        file = REPOSITORY / folder / "CMakeLists.txt"
        wanted = with_lists(folder)
        if file.read_text("utf-8") != wanted:
            stale.append(str(file.relative_to(REPOSITORY)))
            if "--check" not in sys.argv:
                file.write_text(wanted, "utf-8")
    print("\n".join(stale) or "up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
