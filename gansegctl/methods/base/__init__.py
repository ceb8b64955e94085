"""Parts that all methods share: the segmenter and its file, settings, the fitting loop, heads, clusters."""
