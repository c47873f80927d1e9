"""Measure offline what the cascade promises; the results stand in `docs/`."""
