"""Show an operator what happens: metrics, records and spans."""
