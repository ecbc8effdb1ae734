"""Runs attempts: local worker processes, a cluster of nodes, and Nushell."""
