"""The API servers' reader of task logs of any size, in bounded memory."""
