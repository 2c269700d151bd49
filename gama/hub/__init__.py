"""Named models: the table of them, fetching with checks, what lies on this disk. No torch."""
