"""Keep track of launches that run, and stop them."""
