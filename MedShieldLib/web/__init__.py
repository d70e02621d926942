"""The browser panel."""
