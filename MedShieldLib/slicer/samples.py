"""The sample volumes that ship with the module: which they are, and their checksums."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A volume for Slicer's Sample Data module; file names are relative to the folder of samples."""

    name: str
    file: str
    thumbnail: str
    sha256: str


def register_samples(folder: Path) -> None:
    """Offer the samples of a folder in Slicer's Sample Data module."""
    import SampleData

    for sample in read_samples(folder):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="MedShield",
            sampleName=sample.name,
            uris=(folder / sample.file).as_uri(),
            fileNames=sample.file,
            nodeNames=sample.name,
            thumbnailFileName=str(folder / sample.thumbnail),
            checksums=f"SHA256:{sample.sha256}",
        )


def read_samples(folder: Path) -> list[Sample]:
    """The samples of a folder, as its `samples.json` lists them."""
    entries = json.loads((folder / "samples.json").read_text("utf-8"))
    return [Sample(**entry) for entry in entries]
