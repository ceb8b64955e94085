"""Python's object streams read as data: an own machine that imports and runs nothing of a file."""
