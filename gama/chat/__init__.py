"""A conversation about sounds: clips on a shelf, turns, commands. No terminal and no torch in here."""
