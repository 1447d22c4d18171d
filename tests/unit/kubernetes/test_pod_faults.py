"""Faults choose nodes that the data tier survives, and undo what they did."""

from __future__ import annotations

import contextlib
import io
import itertools

import pytest

from ops.errors import StackError
from ops.kubernetes import chart, installation, pod_drills, pod_faults, pod_ledger
from ops.kubernetes.cluster import node_drills
from ops.kubernetes.schema_check import VARIANTS
from tests.unit.kubernetes.programs_of_cluster import calls, install_programs
from tests.unit.kubernetes.rendered import cluster_with


def pod(component, node, number=1):
    return {
        "metadata": {"name": f"{component}-{number}", "labels": {"component": component}},
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running",
            "podIP": f"10.88.0.{number}",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Return a cluster with a data profile and these pods, and perhaps the ledger."""

    def make(variant, *pods, ledger=()):
        answers = {
            f"kubectl pods --selector=component={pod_faults.LEDGER}": {"items": list(ledger)},
            "kubectl pods": {"items": list(pods)},
        }
        install_programs(tmp_path, answers)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setattr(chart, "archive", lambda: tmp_path / "airflow.tgz")
        return cluster_with(*VARIANTS[variant])

    return make


def test_the_node_with_the_single_postgres_gets_the_ledger_and_no_fault(cluster):
    of = cluster("single data", pod("postgres", "a"), *(pod("worker", "a", 2), pod("worker", "b", 3)))
    assert pod_faults.ledger_node(of) == "a"
    assert pod_faults.target_node(of) == "b"


def test_a_node_with_tasks_gets_the_fault_and_one_without_gets_the_ledger(cluster):
    pods = [pod("worker", "a", 1), pod("scheduler", "b", 2), pod("patroni", "b", 3), pod("redis", "b", 4)]
    of = cluster("replicated data", *pods)
    assert pod_faults.ledger_node(of) == "b"
    assert pod_faults.target_node(of) == "a"


def test_a_node_with_two_sentinels_gets_no_fault(cluster):
    pods = [pod("sentinel", "a", 1), pod("sentinel", "a", 2), pod("sentinel", "b", 3), pod("worker", "a", 4)]
    assert pod_faults.target_node(cluster("replicated data", *pods)) == "b"


def test_a_node_with_the_ledger_gets_no_fault(cluster):
    pods = [pod("worker", "a", 1), pod("scheduler", "a", 2), pod("worker", "b", 3)]
    of = cluster("external data", *pods, ledger=[pod(pod_faults.LEDGER, "a")])
    assert pod_faults.target_node(of) == "b"
    with pytest.raises(StackError):
        pod_faults.target_node(cluster("external data", pods[0], ledger=[pod(pod_faults.LEDGER, "a")]))


def test_a_drain_evicts_only_pods_of_the_installation(cluster, tmp_path):
    of = cluster("external data", pod("worker", "a"), pod("scheduler", "a", 2), pod("worker", "b", 3))
    assert pod_faults.drain(of, lambda _: None) == ["worker-1", "scheduler-2"]
    (call,) = [call for call in calls(tmp_path) if "drain" in call]
    assert "a" in call
    assert "--pod-selector=release=airflow" in call


def test_an_upgrade_replaces_all_pods_but_those_of_the_data_tier(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "wait_for_components", lambda *_: None)
    of = cluster("single data", pod("worker", "a"), pod("postgres", "a", 2))
    assert pod_faults.upgrade(of, lambda _: None) == ["worker-1"]
    assert [call for call in calls(tmp_path) if call[0] == "helm" and "--reuse-values" in call]


def test_a_fault_is_reverted_when_the_drill_fails(monkeypatch, cluster):
    reverted = []
    monkeypatch.setattr(pod_drills, "loaded", lambda *_: contextlib.nullcontext((Book(), None)))
    monkeypatch.setattr(pod_drills, "wait_until_running", lambda *_: None)

    def fail(*_):
        raise StackError("cannot inject it")

    drill = pod_drills.PodDrill("broken", "it fails", fail, lambda *_: reverted.append(True))
    with pytest.raises(StackError, match="cannot inject"):
        pod_drills.run(drill, cluster("external data"), lambda: None, lambda _: None, lambda _: None)
    assert reverted == [True]


class Book:
    def now(self):
        return 0.0


def test_the_run_is_watched_over_a_connection_that_is_cut(monkeypatch):
    monkeypatch.setattr(pod_drills, "RECONNECT_SECONDS", 0.0)
    tries = itertools.count()

    class Api(io.StringIO):
        state = "success"

        def wait_for(self, *_, **__):
            if next(tries) < 2:
                raise StackError("cannot reach Airflow")
            return self

    assert pod_drills.state_at_end(Api, None, lambda _: None) == "success"
    assert next(tries) == 3


def test_the_ledger_runs_on_the_chosen_node(cluster):
    pod_object, *_ = pod_ledger.ledger_objects(cluster("external data"), "node-9")
    assert pod_object["spec"]["nodeName"] == "node-9"


def test_a_cut_node_is_joined_by_the_reverse_of_what_cut_it():
    cut = list(node_drills.cutting_rules(["10.88.1.5"]))
    joined = list(node_drills.joining_rules())
    dropped = [rule for rule in cut if "DROP" in rule]
    assert {rule[2] for rule in dropped} == {"--source", "--destination"}
    assert {rule[3] for rule in dropped} == {"10.88.1.5", node_drills.CONTROL_ADDRESS}
    # Before the chain is in use it is complete; before it is deleted nothing uses it.
    assert [rule[0] for rule in cut[-3:]] == ["--insert"] * 3
    assert [rule[0] for rule in joined] == ["--delete"] * 3 + ["--flush", "--delete-chain"]
    assert [rule[1:] for rule in cut[-3:]] == [rule[1:] for rule in joined[:3]]


def test_the_data_tier_of_other_nodes_is_cut_off(cluster):
    pods = [pod("postgres", "node-1", 7), pod("redis", "node-2", 8)]
    of = cluster("single data", *pods)
    assert node_drills.data_addresses(of, node_drills.Node(2)) == ["10.88.0.7"]
