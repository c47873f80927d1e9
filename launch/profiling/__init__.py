"""Measure engines at a few loads and write the results as profiles."""
