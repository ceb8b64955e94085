"""Files: atomic writes, digests, images, run-length masks, tensors with a header, run folders, training states."""
