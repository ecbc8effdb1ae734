"""The program and the host it is on: installed, upgraded, taken away, and looked at."""
