"""Figures: numbers in, pictures out. The only place that knows matplotlib."""
