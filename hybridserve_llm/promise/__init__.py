"""Say what a running cascade may promise."""
