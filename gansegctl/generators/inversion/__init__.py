"""Latents of a given image: search, the space searched, perceptual distance, out of domain or not."""
