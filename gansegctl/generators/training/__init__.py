"""Adversarial training of a small StyleGAN2."""
