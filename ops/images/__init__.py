"""Images of the stack: used, pulled, or built from packages."""
