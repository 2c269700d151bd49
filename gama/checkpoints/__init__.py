"""Files that hold weights: what they are, the released names, conversion, the packaged model."""
