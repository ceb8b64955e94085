"""Abdal et al. 2021 (Labels4Free): an alpha branch trained against the generator's own backgrounds."""
