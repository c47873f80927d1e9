"""Put engines under load, and read what they and their processes count meanwhile."""
