"""Hold the values that pass between layers."""
