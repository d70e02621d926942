"""Benchmarks: benign shifts, baselines, tables."""
