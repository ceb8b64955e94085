"""Speed and memory against stated baselines: what `gansegctl bench` runs."""
