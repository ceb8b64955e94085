"""The outer form of a checkpoint: zip, pickle, safetensors, legacy torch files; found by content."""
