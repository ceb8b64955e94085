"""The formats that masks come back in, one module each; `annotation.registry` finds out which one a file has."""
