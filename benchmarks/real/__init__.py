"""Labels saved on real images: `python -m benchmarks.real.bench`."""
