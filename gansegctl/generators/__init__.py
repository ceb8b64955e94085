"""Generators: StyleGAN2 in plain torch, its latents, its discriminator and its adversarial training."""
