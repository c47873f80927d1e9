"""Read recorded answers and runs, and price them."""
