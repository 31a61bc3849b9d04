"""Project settings of Kedro."""

from persona_leakage.configuration import ModelConfigLoader
from persona_leakage.hooks import (
    FittingModel,
    FittingSettings,
    FreeMemory,
    KnownParameters,
    NoKeys,
    RunRecord,
    StalePlanGuard,
)

CONFIG_LOADER_CLASS = ModelConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "embedded",
    "config_patterns": {"parameters": ["parameters*", "parameters*/**", "**/parameters*", "models.yml"]},
    # an environment states only what it changes
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    # folder of a checkpoint inside its seed's; families without checkpoints have none
    "custom_resolvers": {
        "epoch_folder": lambda epoch: "" if epoch is None else f"/epoch_{int(epoch):02d}",
        "dose_folder": lambda dose: "" if dose == "final" else f"/{dose}",
    },
}

HOOKS = (NoKeys(), KnownParameters(), FittingSettings(), StalePlanGuard(), FittingModel(), FreeMemory(), RunRecord())
