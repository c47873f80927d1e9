"""Keep the books of joules and the records of requests."""
