"""Find out what this machine has."""
