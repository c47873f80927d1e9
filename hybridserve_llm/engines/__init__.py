"""Talk to running vLLM servers."""
