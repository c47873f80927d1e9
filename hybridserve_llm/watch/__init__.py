"""Watch a serving cascade: shadowed answers, an alarm with error control, drift warnings."""
