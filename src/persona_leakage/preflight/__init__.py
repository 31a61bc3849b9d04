"""Before a grid is run: does this machine have what it needs, and what will it take?

`estimate` counts from the plans alone, `checks` judges what `probes` found on the machine, `examination` puts them together.
"""
