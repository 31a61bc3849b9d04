"""Frozen value types of the study; this package imports nothing else of the project."""
