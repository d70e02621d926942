"""SNOMED CT codes of structures, found by their names, for Slicer's `.seg.nrrd` and for DICOM SEG.

A structure whose name is not known here is plain "Tissue": a wrong code is worse than a general one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A SNOMED CT concept: its identifier and its meaning, as DICOM PS3.16 writes them."""

    code: str
    meaning: str

    def __str__(self) -> str:
        return f"SCT^{self.code}^{self.meaning}"


TISSUE = Term("85756007", "Tissue")
SUBSTANCE = Term("91720002", "Body Substance")
# DICOM has 91723000 now; 3D Slicer's lists keep 123037004, and read both.
STRUCTURE = Term("123037004", "Anatomical Structure")

# Category and type: DICOM PS3.16, CID 7150 and CID 7153.
_KNOWN = {
    "brain": (STRUCTURE, Term("12738006", "Brain")),
    "cerebrospinal fluid": (SUBSTANCE, Term("65216001", "Cerebrospinal Fluid")),
    "gray matter": (TISSUE, Term("389081007", "Gray Matter")),
    "white matter": (TISSUE, Term("389080008", "White Matter")),
}
_SYNONYMS = {
    "brain mask": "brain",
    "csf": "cerebrospinal fluid",
    "gm": "gray matter",
    "grey matter": "gray matter",
    "wm": "white matter",
}


def terms_of(name: str) -> tuple[Term, Term]:
    """Category and type of a structure by its name, in any case."""
    plain = " ".join(name.lower().replace("_", " ").split())
    return _KNOWN.get(_SYNONYMS.get(plain, plain), (TISSUE, TISSUE))


def slicer_entry(name: str) -> str:
    """The codes of a structure as 3D Slicer serialises a terminology entry."""
    category, kind = terms_of(name)
    return (
        f"Segmentation category and type - 3D Slicer General Anatomy list~{category}~{kind}~^^"
        "~Anatomic codes - DICOM master list~^^~^^"
    )
