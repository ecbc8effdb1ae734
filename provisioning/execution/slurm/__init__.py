"""Attempts on the nodes of a Slurm cluster: their executor, the thread that watches them, every call of a command."""
