"""Search for the plan that carries a load best; no input or output."""
