"""Start, watch and stop vLLM engines."""
