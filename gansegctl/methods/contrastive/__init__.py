"""Manerikar & Kak 2023: self-supervised contrastive pre-training, then a head on one shot."""
