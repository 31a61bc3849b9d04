"""Stage `reporting`: what the reports of two families or more share; tables, figures and report are each family's own."""
