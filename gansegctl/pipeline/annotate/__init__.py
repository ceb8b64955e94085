"""`gansegctl annotate`: exemplars out, masks in, a fitted segmenter, and its masks in the dataset."""
