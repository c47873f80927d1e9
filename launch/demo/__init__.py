"""Make the demo family: three small checkpoints, and the questions that they answer."""
