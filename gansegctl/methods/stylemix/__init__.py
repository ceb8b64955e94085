"""Feng et al.: clusters of style-mixed variants of one image, no network."""
