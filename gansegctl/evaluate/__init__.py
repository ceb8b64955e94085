"""Scores: confusion matrices and the IoU family, trimaps, bootstrap intervals, and the report that gathers them."""
