"""Zhang et al. 2021 (DatasetGAN): ten perceptrons a pixel, their disagreement as uncertainty."""
