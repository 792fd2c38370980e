"""Who asks: one command, one file; what it answers and how that is shown."""
