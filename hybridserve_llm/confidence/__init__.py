"""Scores of answers, from token log-probabilities."""
