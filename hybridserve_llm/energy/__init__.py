"""Measured energy: meters, the samples they give, and who is charged for the joules."""
