"""Define the files that a person writes: the configuration's models, and their one loader."""
