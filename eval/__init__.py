"""Offline scripts that measure what the cascade promises; their results stand in `docs/`."""
