"""The study of the methods on the demo generator: `make study`."""
