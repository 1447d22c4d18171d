"""A package for pytest too: the stack of its tests goes with the last of them, before those of another folder begin."""
