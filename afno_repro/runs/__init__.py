"""What is done: the machine, a run from its lock to its record, many runs side by side."""
