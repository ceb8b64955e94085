"""Files: atomic writes, images, run-length masks, tensors with a header, run folders, training states."""
