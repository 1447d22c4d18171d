"""Clients of the HTTP APIs of the stack's services."""
