"""`gansegctl distill`: a student that needs no generator, from a dataset of pairs."""
