"""Real clients and servers on both sides of the real gateway."""
