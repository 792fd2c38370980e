"""Published weights: read, renamed, resized to a model of ours, written."""
