"""Other projects' trained generators, read as data: nothing in a file is executed, nothing it names is imported.

`opening.open_checkpoint` reads a generator from any file; `discriminators.open_discriminator` reads its critic.
"""
