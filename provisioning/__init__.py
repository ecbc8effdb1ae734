"""Runs infrastructure operations written in Nushell as durable, dependency-ordered workflows."""

__version__ = "0.1.0"
