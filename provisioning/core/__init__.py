"""Pure decisions: no disk, clock, process or randomness."""
