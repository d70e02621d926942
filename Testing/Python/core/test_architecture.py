"""The arrows of the architecture: who may import whom."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import MedShieldLib

LIBRARY = Path(MedShieldLib.__file__).parent
MODULES = {
    ".".join(("MedShieldLib", *path.relative_to(LIBRARY).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in LIBRARY.rglob("*.py")
}

# The parts of the shield, from the bottom up; each may use what stands before it.
LAYERS = (
    "volume", "converter", "versions", "fusion", "symmetry", "detector", "second_opinion", "observation",
    "clean_rows", "families", "reformer", "calibration", "recalibration", "shield",
)  # fmt: skip
FACES = ("cli", "worker", "terminal", "jobs", "demo", "slicer", "panel", "web")
STUDIES = ("attacks", "evaluation", "training")


def statements(module: str) -> list[tuple[str, str]]:
    """(what it is imported from, its full name) of all that a module imports, at its top or in functions."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports relatively"
            found += [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def imports(module: str) -> set[str]:
    """The full names of all that a module imports, and of where it comes from."""
    return {name for pair in statements(module) for name in pair}


def arrows(module: str) -> set[str]:
    """The modules of MedShieldLib that a module imports; a package only where it is meant itself."""
    found = {name if name in MODULES else package for package, name in statements(module)}
    return found & set(MODULES) - {module}


def parts(module: str) -> set[str]:
    """The parts of MedShieldLib that a module imports: 'targets' for MedShieldLib.targets.base."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("MedShieldLib.")}


def within(*names: str) -> list[str]:
    """The modules of some parts."""
    return sorted(m for m in MODULES if m.split(".")[1:2] and m.split(".")[1] in names)


def test_arrows_run_one_way():
    graph = {module: arrows(module) for module in MODULES}
    # The one shortcut upwards, for users of the Python API: `CheckResult.save`.
    graph["MedShieldLib.result"].remove("MedShieldLib.export.folder")
    TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_of_the_shield_uses_no_layer_above_it(layer):
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    assert not parts(f"MedShieldLib.{layer}") & above


@pytest.mark.parametrize(
    "module", within(*LAYERS, "targets", "calibration", "heatmap", "smoothing", "agreement")
)
def test_the_shield_knows_no_face_no_attack_and_no_study(module):
    assert not parts(module) & {*FACES, *STUDIES}


@pytest.mark.parametrize("module", within("targets"))
def test_targets_know_no_detector(module):
    assert not parts(module) & {"detector", "calibration", "observation", "reformer", "shield", "versions"}


@pytest.mark.parametrize("module", within(*(set(LAYERS) - {"volume"})))
def test_the_shield_knows_no_target_by_name(module):
    known = {name for name in imports(module) if name.startswith("MedShieldLib.targets")}
    allowed = ("MedShieldLib.targets.base", "MedShieldLib.targets.grid")
    assert all(name == "MedShieldLib.targets" or name.startswith(allowed) for name in known), known


@pytest.mark.parametrize("module", sorted(MODULES))
def test_slicer_qt_and_trame_stay_in_their_folders(module):
    outside = {"slicer", "qt", "ctk", "vtk", "trame", "MRMLCorePython"} & {
        n.split(".")[0] for n in imports(module)
    }
    assert not outside or module.split(".")[1] in ("slicer", "panel", "web"), outside


@pytest.mark.parametrize("module", within("slicer"))
def test_what_needs_only_the_scene_knows_no_widgets(module):
    assert not {"qt", "ctk"} & {n.split(".")[0] for n in imports(module)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_unpickled(module):
    """torch.load only with weights_only, NumPy's without pickles, and no pickle module, anywhere."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        assert not ast.unparse(call.func).startswith(("pickle.load", "joblib.load", "cloudpickle.load"))
        if ast.unparse(call.func) in ("torch.load", "np.load", "numpy.load"):
            safe = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert safe.get("weights_only") == "True" or safe.get("allow_pickle", "False") == "False"
            assert "torch" not in ast.unparse(call.func) or safe.get("weights_only") == "True"
