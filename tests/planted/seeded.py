"""Planted rates of cells over conditions and seeds."""


def rows(condition, cell, hits, n, seed=0, *, role="bystander", part="all", metric="leakage", checkpoint=0):
    return {
        "condition": condition, "cell": cell, "part": part, "role": role, "metric": metric, "seed": seed, "hits": hits, "n": n,
        "checkpoint": checkpoint, "reference": None,
    }  # fmt: skip


def scattered(rng, mean, spread):
    """Draw the rate of a training run: a beta variate with this mean and standard deviation."""
    if not spread:
        return mean
    size = mean * (1 - mean) / spread**2 - 1
    return rng.beta(mean * size, (1 - mean) * size)


def drawn(rng, condition, cell, mean, n=80, seeds=1, spread=0.0, **more):
    return [rows(condition, cell, rng.binomial(n, scattered(rng, mean, spread)), n, seed, **more) for seed in range(seeds)]


def trained(rng, conditions, mean, spread=0.08, seeds=3, n=80, cells=5):
    """Draw conditions whose cells share a training's luck: one logit a seed moves all of them, and each has some of its own."""
    found = []
    for place, condition in enumerate(conditions):
        for seed in range(seeds):
            common = rng.normal()
            for cell in range(cells):
                rate = mean(place, cell) + spread * (0.8 * common + 0.6 * rng.normal())
                found.append(rows(condition, cell, rng.binomial(n, min(max(rate, 0), 1)), n, seed))
    return found
