"""Claims workflows, acts on the scheduler's decisions, recovers."""
