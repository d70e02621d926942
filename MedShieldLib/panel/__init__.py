"""The Qt side of the 3D Slicer panel, one section of it a file; only importable inside Slicer."""
