"""`gansegctl compare`: several methods on one generator and one truth."""
