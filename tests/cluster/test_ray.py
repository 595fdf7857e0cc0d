"""A sweep as tasks on a Ray cluster of two nodes, which the test starts. One node is killed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

from tests.sweep.driving import begin, driver, evaluations, starts, until
from tests.sweep.test_kills import assert_complete


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.filterwarnings("default")  # Ray's own
def test_trials_run_on_both_nodes_and_one_node_may_be_killed(cluster: Cluster, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    store = begin(tmp_path, points=6, config={"evaluations": 10, "pause": 0.4})
    with driver(tmp_path, 2, "ray", cluster.address) as process:
        until(lambda: evaluations(tmp_path, 0) and evaluations(tmp_path, 1))
        assert starts(tmp_path, 0) != starts(tmp_path, 1), "each node has one of them"
        cluster.remove_node(second, allow_graceful=False)
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert_complete(tmp_path, store, count=6)
    assert sum(len(starts(tmp_path, number)) for number in range(6)) == 7, "one of them was begun twice"
