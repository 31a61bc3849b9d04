"""Stage `scoring`."""
