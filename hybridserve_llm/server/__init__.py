"""The OpenAI-compatible front end; FastAPI lives only here."""
