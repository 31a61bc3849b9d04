"""A Ray cluster of several nodes on this machine: every node has its own raylet, as its own process, and its own address."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a token for a cluster that nobody else can reach would be kept in the home folder


@contextmanager
def running_cluster(environment: dict[str, str]) -> Iterator[Any]:
    """Start a head that computes nothing; the nodes' processes know the environment's variables."""
    import pytest
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster
        finally:
            cluster.shutdown()
