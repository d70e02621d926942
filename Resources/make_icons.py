"""Draws the PNG icons from MedShield.svg: `python Resources/make_icons.py` (needs PySide6-Essentials)."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

HERE = Path(__file__).resolve().parent
SIZE = 128
ICONS = (HERE / "MedShield.png", HERE.parent / "MedShield" / "Resources" / "Icons" / "MedShield.png")


def main() -> None:
    """Draw the icon once and write it wherever it is needed."""
    application = QGuiApplication([])
    image = QImage(SIZE, SIZE, QImage.Format_ARGB32)
    image.fill(0)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.Antialiasing)
    QSvgRenderer(str(HERE / "MedShield.svg")).render(painter)
    painter.end()
    for icon in ICONS:
        if not image.save(str(icon)):
            raise SystemExit(f"{icon} cannot be written")
    del application


if __name__ == "__main__":
    main()
