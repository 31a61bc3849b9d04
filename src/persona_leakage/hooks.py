"""Kedro hooks, one class a concern."""

import ctypes
import ctypes.util
import gc
import logging
import sys
import time
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.framework.hooks import hook_impl
from kedro.framework.project import settings
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from persona_leakage.domain.errors import UserError
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import FAMILIES, REPLAYS
from persona_leakage.experiments.points import plan_from_parameters
from persona_leakage.run_record import count_tokens, describe_code, describe_machine, now, peak_rss_gib

logger = logging.getLogger(__name__)


def _family(pipeline: Pipeline) -> str | None:
    roots = {str(node.namespace).split(".")[0] for node in pipeline.nodes}
    return next((name for name in (*FAMILIES, *REPLAYS) if name in roots), None)


def _plan(family: str, catalog: DataCatalog) -> Plan:
    names = ("condition", "seed", "checkpoint", "base_model", "completions_file", "rates_file", REPLAYS.get(family, family))
    return plan_from_parameters(family, {name: catalog.load(f"params:{name}") for name in names}, catalog.load)


class KnownParameters:
    """Refuses `--params` keys that no parameter file knows, which Kedro would take silently, and a checkpoint that is none."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Compare the keys given at run time with those of the configuration.

        Raises:
            UserError: a key is unknown, or the checkpoint is no whole number.
        """
        loader: AbstractConfigLoader = context.config_loader
        if not loader.runtime_params:
            return
        plain = OmegaConfigLoader(conf_source=loader.conf_source, env=loader.env, **settings.CONFIG_LOADER_ARGS)
        known = set(plain["parameters"])
        if unknown := set(loader.runtime_params) - known:
            raise UserError(f"--params: no parameter is called {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        checkpoint = loader.runtime_params.get("checkpoint")
        if checkpoint is not None and type(checkpoint) is not int:  # paths are made of it before any parameter is checked
            raise UserError(f"--params: checkpoint={checkpoint} is no whole number; give an epoch such as 2")


class StalePlanGuard:
    """Refuses to go on from saved artifacts that were made under other parameters.

    A run that begins with `plan_point` makes everything anew (what is kept by content is found again); one that starts
    further down or skips existing outputs reads what is on disk, which must be what the parameters now say.
    """

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Compare the saved plan with the one that the parameters give now.

        Raises:
            UserError: they differ.
        """
        family = _family(pipeline)
        if family is None or f"{family}.plan" not in pipeline.datasets():
            return
        begins = any(f"{family}.plan" in node.outputs for node in pipeline.nodes)
        if (begins and not run_params["only_missing_outputs"]) or not catalog.exists(f"{family}.plan"):
            return
        saved, wanted = catalog.load(f"{family}.plan"), _plan(family, catalog)
        if saved.fingerprint != wanted.fingerprint:
            changed = [name for name in Plan.model_fields if getattr(saved, name) != getattr(wanted, name)]
            point = " ".join([family, *(f"{key}={value}" for key, value in wanted.point.items())])
            raise UserError(
                f"{point} was last run with other parameters ({', '.join(changed)}), so its "
                "artifacts are stale; run the pipeline whole, without --from-nodes, --tags or --only-missing-outputs"
            )


class FreeMemory:
    """Gives back what a node's models took, on the GPU and to the operating system, before the next node needs it."""

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Collect garbage, which takes a third of a second, and empty the allocators' caches after nodes that load a model."""
        torch = sys.modules.get("torch")
        if torch is None or not {"trainer", "generator", "extractor"} & set(node.inputs):
            return
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        libc = ctypes.util.find_library("c")
        if libc and hasattr(ctypes.CDLL(libc), "malloc_trim"):  # glibc keeps freed memory otherwise
            ctypes.CDLL(libc).malloc_trim(0)


class RunRecord:
    """Appends each run of a point to its run record, whether it ends well or not."""

    def __init__(self) -> None:
        """Prepare an empty record."""
        self._record: dict[str, Any] = {}
        self._node_started: dict[str, float] = {}

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the record."""
        self._record = {"started": now(), "nodes": {}}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start a node's clock."""
        self._node_started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Note a node's seconds, the process's peak memory up to its end, and the tokens that it sampled or trained on."""
        seconds = round(time.perf_counter() - self._node_started[node.name], 3)
        entry: dict[str, float] = {"seconds": seconds, "peak_rss_gib": peak_rss_gib()}
        if tokens := sum(count_tokens(name, value) for name, value in outputs.items()):
            entry["tokens"] = tokens
        self._record["nodes"][node.name] = entry

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Close the record of a run that ended well."""
        self._close(run_params, pipeline, catalog, error=None)

    @hook_impl
    def on_pipeline_error(self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Close the record of a run that failed."""
        try:
            self._close(run_params, pipeline, catalog, error=error)
        except Exception:  # the run's own error matters more than its record
            logger.debug("no run record", exc_info=True)

    def _close(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog, error: Exception | None) -> None:
        family = _family(pipeline)
        if family is None:
            return
        plan = _plan(family, catalog)
        entry = {
            "run_id": run_params["run_id"],
            "status": "failed" if error else "completed",
            "error": None if error is None else str(error).splitlines()[0],
            "plan": plan.fingerprint,
            **self._record,
            "finished": now(),
            "environment": run_params["env"] or settings.CONFIG_LOADER_ARGS["default_run_env"],
            "runtime_params": run_params["runtime_params"],
            "code": describe_code(Path(run_params["project_path"])),
            "machine": describe_machine(),
            "parameters": plan.model_dump(mode="json"),
        }
        name = f"{family}.run_record"
        earlier = catalog.load(name) if catalog.exists(name) else []
        catalog.save(name, [*earlier, entry])
