"""Talks to running vLLM servers."""
