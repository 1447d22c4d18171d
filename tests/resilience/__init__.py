"""The drills, on stacks of their own."""
