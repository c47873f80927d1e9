"""What an operator sees: metrics and records."""
