"""Programs that measure, with their results: `python -m benchmarks.NAME` from the root. Nothing here is installed."""
