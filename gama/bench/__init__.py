"""``gama bench``: how long each stage of an answer takes on this machine, against what the machine allows."""
