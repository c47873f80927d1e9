"""From configuration and hardware to a plan; pure."""
