"""Kedro hooks, one class a concern."""

import ctypes
import gc
import logging
import sys
import time
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, OmegaConfigLoader
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines, settings
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from persona_leakage.domain.dose import NeverReachedError
from persona_leakage.domain.errors import UserError
from persona_leakage.domain.frozen import fingerprint
from persona_leakage.domain.plan import Plan
from persona_leakage.experiments import family_of, is_replay
from persona_leakage.experiments.family import read_variants, resolve_plan
from persona_leakage.keys import refuse_keys
from persona_leakage.run_record import (
    UNREACHED,
    count_left_out,
    count_tokens,
    describe_code,
    describe_machine,
    now,
    peak_rss_gib,
)

logger = logging.getLogger(__name__)

_ENGINES = {"trainer", "generator", "extractor"}  # that load a model


def _plan_name(pipeline: Pipeline) -> str | None:
    """Name the plan of the one family, or replay, that a pipeline is of."""
    plans = [name for name in pipeline.datasets() if name.endswith(".plan")]
    return plans[0] if len(plans) == 1 else None


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
        for name in ("model", "condition", "dose"):  # paths are made of them before any parameter is checked
            if "/" in str(loader.runtime_params.get(name)):
                raise UserError(f"--params: {name}={loader.runtime_params[name]} names a folder; a name has no slash")
        checkpoint = loader.runtime_params.get("checkpoint")
        if checkpoint is not None and type(checkpoint) is not int:
            raise UserError(f"--params: checkpoint={checkpoint} is no whole number; give an epoch such as 2")


class FittingSettings:
    """Refuses settings that do not fit, of whatever family: Kedro checks all of them for every run, and at some length."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Check every family's settings for every model; raise what `read_variants` does."""
        parameters = context.config_loader["parameters"]
        for name in parameters["variants"]:
            read_variants(family_of(name), parameters)


class NoKeys:
    """Refuses a key in configuration that is packaged."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Look through the folder; an archive was looked through when it was made."""
        refuse_keys(Path(context.config_loader.conf_source))


class StalePlanGuard:
    """Refuses to go on from saved artifacts that were made under other parameters.

    A run that begins with `plan_point` makes everything anew (what is kept by content is found again); one that starts
    further down or skips existing outputs reads what is on disk, which must be what the parameters now say.
    """

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Note the parameters."""
        self._parameters = context.config_loader["parameters"]

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Compare the saved plan with the one that the parameters give now.

        Raises:
            UserError: they differ, or the parameters do not fit, whatever part of the pipeline is run.
        """
        name = _plan_name(pipeline)
        if name is None:
            return
        family = name.removesuffix(".plan")
        wanted = resolve_plan(family, self._parameters, catalog.load)
        begins = any(name in node.outputs for node in pipeline.nodes)
        if catalog.exists(name) and (not begins or run_params["only_missing_outputs"]):
            saved = catalog.load(name)
            if saved.fingerprint != wanted.fingerprint:
                changed = [field for field in Plan.model_fields if getattr(saved, field) != getattr(wanted, field)]
                raise UserError(
                    f"{wanted.family}, {wanted.address}, was last run with other parameters ({', '.join(changed)}), so its "
                    "artifacts are stale; run the pipeline whole, without --from-nodes, --tags or --only-missing-outputs"
                )
        if others := self._made_otherwise(family, wanted, pipeline, catalog):
            raise UserError(
                f"{wanted.family}, {wanted.address}: what this part reads ({', '.join(sorted(others))}) was made with other "
                "parameters, and only what comes before it was made anew; run the pipeline whole"
            )

    def _made_otherwise(self, family: str, wanted: Plan, pipeline: Pipeline, catalog: DataCatalog) -> list[str]:
        """List what a part of a pipeline reads of its point that steps left out of it made under another plan.

        A run that ended early may have saved a plan that nothing else was made under; the run record knows.
        """
        record = f"{family}.run_record"
        runs = catalog.load(record) if catalog.exists(record) else []
        plans = {node: run["plan"] for run in runs for node in run["nodes"]}  # the last run of a step counts
        of = _without_kind if is_replay(family) else str  # a replay's report is of its one point, others' of all
        makers = {of(output): node.name for node in pipelines[family].nodes for output in node.outputs}
        makers.pop(f"{family}.plan", None)
        read = {name: makers[of(name)] for name in pipeline.inputs() if of(name) in makers}
        return [name for name, maker in read.items() if plans.get(maker, wanted.fingerprint) != wanted.fingerprint]


def _without_kind(name: str) -> str:
    """Name a dataset whatever it is read as."""
    return name.split("@")[0]


class FittingModel:
    """Refuses a base model that cannot do what a plan asks of it, once the plan is made and before all else."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Note where base models are."""
        self._cache = Path(context.project_path) / context.config_loader["globals"]["cache"]

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Note whether a model computes in this run."""
        self._computes = bool(_ENGINES & pipeline.inputs())

    @hook_impl
    def after_node_run(self, outputs: dict[str, Any]) -> None:
        """Look at the model of a plan that was just made; raise what `require_fit` does."""
        for plan in outputs.values():
            if self._computes and isinstance(plan, Plan):
                from persona_leakage.engines.adaptation import require_fit

                require_fit(plan, self._cache)


class FreeMemory:
    """Gives back what a node's models took, on the GPU and to the operating system, before the next node needs it."""

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Collect garbage, which takes a third of a second, and empty the allocators' caches after nodes that load a model."""
        torch = sys.modules.get("torch")
        if torch is None or not _ENGINES & set(node.inputs):
            return
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory otherwise
            libc.malloc_trim(0)


class RunRecord:
    """Appends each run of a point to its run record, whether it ends well or not."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Note the parameters."""
        self._parameters = context.config_loader["parameters"]

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the record; a run that begins after the plan was resolved is one of the saved plan."""
        self._record: dict[str, Any] = {"started": now(), "nodes": {}}
        self._node_started: dict[str, float] = {}
        name = _plan_name(pipeline)
        resolves = any(name in node.outputs for node in pipeline.nodes)
        self._plan: Plan | None = catalog.load(name) if name and not resolves and catalog.exists(name) else None

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start a node's clock."""
        self._node_started[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Note a node's seconds, the process's peak memory up to its end, and what it sampled, trained on and left out."""
        seconds = round(time.perf_counter() - self._node_started[node.name], 3)
        tokens = sum(count_tokens(name, value) for name, value in outputs.items())
        left_out = sum(count_left_out(name, value) for name, value in outputs.items())
        counted = {name: count for name, count in (("tokens", tokens), ("left_out", left_out)) if count}
        entry = {"seconds": seconds, "peak_rss_gib": peak_rss_gib(), **counted}
        self._record["nodes"][node.name] = entry
        self._plan = next((value for value in outputs.values() if isinstance(value, Plan)), self._plan)

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
        if (plan := self._plan) is None:  # nothing of a point was computed
            return
        entry = {
            "run_id": run_params["run_id"],
            "status": UNREACHED if isinstance(error, NeverReachedError) else "failed" if error else "completed",
            "error": None if error is None else str(error).splitlines()[0],
            "plan": plan.fingerprint,
            **self._record,
            "finished": now(),
            "environment": run_params["env"] or settings.CONFIG_LOADER_ARGS["default_run_env"],
            "runtime_params": run_params["runtime_params"],
            "code": describe_code(Path(run_params["project_path"])),
            "machine": describe_machine(),
            "parameters": plan.model_dump(mode="json"),
            "claims": self._rules(plan),
        }
        name = f"{plan.family}.run_record"
        earlier = catalog.load(name) if catalog.exists(name) else []
        catalog.save(name, [*earlier, entry])

    def _rules(self, plan: Plan) -> dict[str, str]:
        """Fingerprint the rule of every claim, so that one which is changed after the run shows."""
        settings = read_variants(family_of(plan.family), self._parameters).of(plan.address.model).settings
        return {name: fingerprint(claim) for name, claim in getattr(settings, "claims", {}).items()}
