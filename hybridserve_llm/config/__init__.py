"""What a person writes down: the configuration's models, and its one loader."""
