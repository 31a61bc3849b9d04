"""Stage `fine_tuning`."""
