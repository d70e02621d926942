"""Which extra of the package brings which optional library, to name it when the library is missing."""

from __future__ import annotations

_EXTRA_OF = {
    "matplotlib": "report",
    "jinja2": "report",
    "pydicom": "dicom",
    "highdicom": "dicom",
    "onnxruntime": "onnx",
    "deepbet": "deepbet",
    "torchio": "train",
    "nilearn": "train",
    "psutil": "bench",
    "trame": "web",
    "trame_slicer": "web",
}


def how_to_install(error: ModuleNotFoundError) -> str:
    """One sentence for a library that is not there."""
    library = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(library)
    package = f"'medshield[{extra}]'" if extra else library or "medshield"
    return f"This needs '{library}', which is not installed; run: pip install {package}"
