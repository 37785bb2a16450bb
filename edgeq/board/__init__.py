"""Shared memory: what every worker knows about all workers, and what the supervisor reads without asking them."""
