"""The only code that writes the spool."""
