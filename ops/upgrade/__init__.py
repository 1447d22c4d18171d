"""The upgrade of a running stack to another version of the project, and the automatic return."""
