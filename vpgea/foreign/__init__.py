"""Evaluation logs of other tools, read as they stand."""
