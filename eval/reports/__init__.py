"""Build the reports and render them."""
