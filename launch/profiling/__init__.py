"""Measures engines at a few loads and writes what came out as profiles."""
