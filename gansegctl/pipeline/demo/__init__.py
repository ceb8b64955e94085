"""`gansegctl demo`: the built-in domain and the whole job on it."""
