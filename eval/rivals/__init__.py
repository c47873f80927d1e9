"""Replay other ways of answering the same questions."""
