"""Decide which tier answers a request, and ask the tiers in order."""
