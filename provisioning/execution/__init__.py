"""Runs attempts: local worker processes and Nushell."""
