"""Training: the loop, its optimiser and schedule, checkpoints, and the process it runs in."""
