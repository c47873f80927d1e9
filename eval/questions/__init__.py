"""Read questions and grade answers to them."""
