"""Stand-ins for official images, built from package mirrors where no container registry can be reached."""
