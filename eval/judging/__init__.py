"""Measure how good answers and confidences are, with intervals."""
