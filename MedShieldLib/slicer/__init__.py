"""MRML-only helpers for the 3D Slicer module: no Qt here."""
