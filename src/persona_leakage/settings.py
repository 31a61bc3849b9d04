"""Project settings of Kedro."""

from persona_leakage.hooks import FreeMemory, KnownParameters, RunRecord, StalePlanGuard

CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "embedded",
    # an environment states only what it changes
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}

HOOKS = (KnownParameters(), StalePlanGuard(), FreeMemory(), RunRecord())
