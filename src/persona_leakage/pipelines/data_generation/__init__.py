"""Stage `data_generation`."""
