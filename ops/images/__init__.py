"""Images of the stack: found, pulled or built from packages."""
