"""Score answers from their token log-probabilities."""
