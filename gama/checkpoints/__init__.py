"""Files that hold weights: the released names, the packaged model."""
