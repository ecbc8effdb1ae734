"""The HTTP door: a client of the spool like the command line. Nothing imports it but `cli/serve.py`."""
