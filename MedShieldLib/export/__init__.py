"""Segmentations, result folders, DICOM SEG and the HTML report."""
