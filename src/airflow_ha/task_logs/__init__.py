"""How API servers read the logs of tasks: any size, in bounded memory."""
