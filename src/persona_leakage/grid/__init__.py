"""Many points: which exist, which are stale, and how to run the rest."""
