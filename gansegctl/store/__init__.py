"""Datasets on disk: sharded HDF5, a manifest, and a torch Dataset over them."""
