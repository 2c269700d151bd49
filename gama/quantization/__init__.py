"""The language model in 4 or 8 bits: while loading, stored, and multiplied on a CPU."""
