"""Measure this project itself; the results are in its documentation. Not in the wheel."""
