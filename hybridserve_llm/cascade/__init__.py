"""The product: which tier answers a request."""
