"""Provide measured tables of models on GPUs, and the step-time and power model fitted to them."""
