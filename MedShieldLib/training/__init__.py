"""From data to shipped weights, reproducibly."""
