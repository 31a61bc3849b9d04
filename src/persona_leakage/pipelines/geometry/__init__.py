"""Stage `geometry`."""
