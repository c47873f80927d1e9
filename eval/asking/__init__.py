"""Ask the tiers of a running cascade, and record or measure the answers."""
