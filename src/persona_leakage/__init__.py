"""Experiments on what narrow fine-tuning leaks into cues it was never trained on."""

__version__ = "0.1.0"
