"""bsgap."""
