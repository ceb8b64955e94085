"""`gansegctl project`: latents, and masks, of real images by inversion of a generator."""
