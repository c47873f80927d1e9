"""Serve the cascade over an OpenAI-compatible API; only this folder uses FastAPI."""
