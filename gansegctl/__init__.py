"""gansegctl: a trained StyleGAN in, a labelled segmentation dataset and a stand-alone segmenter out.

Imports nothing, so that `gansegctl --help` answers at once.
"""

__version__ = "0.1.0"
