"""A discrete-event simulator of a whole cascade: pure, seeded, without a clock or a file."""
