"""The projects whose checkpoints are read, one file a family."""
