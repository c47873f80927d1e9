"""Simulate a whole cascade by discrete events: pure, seeded, without a clock or a file."""
