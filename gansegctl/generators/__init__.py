"""Generators: StyleGAN2, StyleGAN3 and StyleGAN-XL in plain torch, their latents and adversarial training."""
