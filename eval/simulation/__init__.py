"""Turn a plan into a cascade that the simulator can run."""
