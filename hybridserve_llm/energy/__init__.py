"""Measure joules, and share them among requests."""
