"""The drills, on stacks that the tests start."""
