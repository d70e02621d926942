"""The benchmark's memory: one JSON line for every finished cell, so that a stopped run goes on.

A cell is found by what decides its outcome: weights, volume, attack, defence, seed. What is in a cell is in
`benchmark.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


class Ledger:
    """Finished cells, in memory and in a file of JSON lines.

    Args:
        path: the file; read if it exists, whatever else a stopped run left behind in its last line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = _parsed(line)
                if row is not None:
                    self.rows[row["key"]] = row

    def add(self, key: str, row: dict) -> dict:
        """Store a finished cell, on disk at once; returns the row as stored: short numbers, none unknown."""
        row = {"key": key, **{name: _short(value) for name, value in row.items() if value == value}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The line break comes first, so that a line which was cut off spoils no other.
            file.write("\n" + json.dumps(row))
            file.flush()
            os.fsync(file.fileno())
        self.rows[key] = row
        return row


def key_of(*parts: object) -> str:
    """A short name for what decides a cell's outcome."""
    return hashlib.sha256(" | ".join(map(str, parts)).encode()).hexdigest()[:20]


def seed_of(*parts: object) -> int:
    """A seed in [0, 2^31) for one cell: the same in every run, whatever else is run."""
    return int(key_of(*parts), 16) % 2**31


def _short(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _parsed(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "key" in row else None
