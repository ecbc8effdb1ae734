"""Pure renderers of what the spool says."""
