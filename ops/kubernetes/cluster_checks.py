"""The checks of `kubernetes check` and `install`, which change nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from ops import secrets_store
from ops.child_process import run_limited
from ops.errors import StackError
from ops.kubernetes import chart, kubectl, remote_parts
from ops.project import dags_folder
from ops.settings_file import has_own_data
from ops.time_limits import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ops.project import Project

OLDEST_KUBERNETES: Final = (1, 32)
"""`matchLabelKeys` of pod affinity and the sleep of a container's stop are on by default since 1.31 and 1.32."""
OLDEST_HELM: Final = (3, 19)
RIGHTS: Final = ("create deployments.apps", "create statefulsets.apps", "create networkpolicies", "create secrets")
OPERATOR_KIND: Final = "prometheusrules.monitoring.coreos.com"
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        subject: What was checked.
        state: `failed` stops an installation.
        detail: What was found.
        hint: How to fix it.
    """

    subject: str
    state: Literal["ok", "note", "failed"]
    detail: str
    hint: str = ""


def run(project: Project, settings: Mapping[str, str]) -> list[Check]:
    """Return the result of every check."""
    checks: list[Callable[[], Check]] = [
        chart_check,
        lambda: helm_check(settings),
        lambda: secrets_check(project, settings),
    ]
    results = [guarded(check) for check in checks]
    cluster = guarded(lambda: version_check(settings))
    results.append(cluster)
    if cluster.state == "failed":
        return results
    return results + [
        guarded(check)
        for check in (
            lambda: rights_check(settings),
            lambda: nodes_check(settings),
            lambda: storage_check(settings),
            lambda: shared_storage_check(settings),
            lambda: dags_check(project, settings),
            lambda: logs_check(settings),
            lambda: log_ins_check(settings),
            lambda: operator_check(settings),
        )
    ]


def guarded(check: Callable[[], Check]) -> Check:
    """Return the result of a check; an error is a failed one."""
    try:
        return check()
    except StackError as error:
        return Check(error.where or "cluster", "failed", error.what, error.hint)


def chart_check() -> Check:
    """Check that the chart is the file of its version."""
    return Check("chart", "ok", f"airflow {chart.VERSION}, {chart.archive()}")


def helm_check(settings: Mapping[str, str]) -> Check:
    """Check helm's version."""
    text = run_limited(kubectl.helm(settings, "version", "--short"), COMMAND, "run helm").stdout.strip()
    new = numbers(text) >= OLDEST_HELM
    hint = "" if new else f"install helm {'.'.join(map(str, OLDEST_HELM))} or later"
    return Check("helm", "ok" if new else "failed", text, hint)


def secrets_check(project: Project, settings: Mapping[str, str]) -> Check:
    """Check the secrets that exist."""
    secrets_store.check(project, lambda: False, external=not has_own_data(settings))
    number = len(secrets_store.generated_names(project))
    return Check("secrets", "ok", f"{number} in {project.shown(project.secrets)}" if number else "none yet")


def version_check(settings: Mapping[str, str]) -> Check:
    """Check that the cluster answers, and its version."""
    text = kubectl.output(settings, "version")
    server = next(line for line in text.splitlines() if line.startswith("Server"))
    new = numbers(server) >= OLDEST_KUBERNETES
    hint = "" if new else f"use Kubernetes {'.'.join(map(str, OLDEST_KUBERNETES))} or later"
    return Check("cluster", "ok" if new else "failed", server, hint)


def rights_check(settings: Mapping[str, str]) -> Check:
    """Check what this user may create."""
    missing = [right for right in RIGHTS if not kubectl.succeeds(settings, "auth", "can-i", "--quiet", *right.split())]
    if missing:
        return Check("rights", "failed", f"may not {', '.join(missing)}", "use an account with these rights")
    return Check("rights", "ok", "may create what an installation has")


def nodes_check(settings: Mapping[str, str]) -> Check:
    """Check how many nodes are ready."""
    nodes = [
        node
        for node in kubectl.read(settings, "nodes")["items"]
        if any(state["type"] == "Ready" and state["status"] == "True" for state in node["status"]["conditions"])
    ]
    needed = 3 if "data-ha" in settings["COMPOSE_PROFILES"].split(",") else 2
    if len(nodes) >= needed:
        return Check("nodes", "ok", f"{len(nodes)} ready")
    why = "Redis and its Sentinels need three" if needed > 2 else "nothing survives its loss"
    return Check("nodes", "note", f"{len(nodes)} ready: {why}", f"add nodes, {needed} or more")


def storage_check(settings: Mapping[str, str]) -> Check:
    """Check the storage class of Postgres and Redis."""
    if not has_own_data(settings):
        return Check("storage class", "ok", "not needed: Postgres and Redis are external")
    return class_check(settings, "storage class", "KUBERNETES_STORAGE_CLASS")


def shared_storage_check(settings: Mapping[str, str]) -> Check:
    """Check the storage class of logs and artifacts. Whether it offers ReadWriteMany shows only when it is used."""
    return class_check(settings, "shared storage class", "KUBERNETES_SHARED_STORAGE_CLASS")


def class_check(settings: Mapping[str, str], subject: str, setting: str) -> Check:
    """Check that a storage class exists."""
    classes = {
        each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
        for each in kubectl.read(settings, "storageclasses")["items"]
    }
    wanted = settings[setting]
    if wanted in classes:
        return Check(subject, "ok", wanted)
    if not wanted and any(classes.values()):
        return Check(subject, "ok", "the cluster's default")
    known = ", ".join(sorted(classes)) or "none"
    return Check(subject, "failed", f"{wanted or 'no default'}: the cluster has {known}", f"set {setting}")


def dags_check(project: Project, settings: Mapping[str, str]) -> Check:
    """Check where DAGs come from."""
    if remote_parts.has_git(settings):
        return Check("DAGs", "ok", f"{settings['KUBERNETES_GIT_REPOSITORY']}, {settings['KUBERNETES_GIT_REF']}")
    folder = project.shown(dags_folder(project, settings))
    return Check("DAGs", "ok", f"`install` copies {folder} to a shared volume")


def logs_check(settings: Mapping[str, str]) -> Check:
    """Check where task logs go."""
    detail = settings["KUBERNETES_LOGS_FOLDER"] if remote_parts.has_s3(settings) else "a shared volume"
    return Check("task logs", "ok", detail)


def log_ins_check(settings: Mapping[str, str]) -> Check:
    """Check that the Secrets which the operator creates have their keys."""
    missing = [
        f"{name}: {key}"
        for name, keys in remote_parts.secret_keys(settings).items()
        for key in sorted(set(keys) - secret_data(settings, name))
    ]
    if missing:
        hint = f"create it in the namespace {settings['KUBERNETES_NAMESPACE']}: see ops/kubernetes/README.md"
        return Check("log-ins of Git and S3", "failed", f"missing: {', '.join(missing)}", hint)
    return Check("log-ins of Git and S3", "ok", "there" if remote_parts.secret_keys(settings) else "none needed")


def secret_data(settings: Mapping[str, str], name: str) -> set[str]:
    """Return the keys of a Secret; none if it does not exist."""
    found = kubectl.output(settings, "get", "secret", name, "--ignore-not-found", "--output=json")
    return set(json.loads(found).get("data", {})) if found.strip() else set()


def operator_check(settings: Mapping[str, str]) -> Check:
    """Check whether the cluster has the Prometheus Operator."""
    if has_operator(settings):
        return Check("Prometheus Operator", "ok", "there: rules, monitors and dashboards are installed")
    detail = "not there: no rules, monitors, dashboards and Alertmanagers are installed"
    return Check("Prometheus Operator", "note", detail, "install it, then run this again")


def has_operator(settings: Mapping[str, str]) -> bool:
    """Return whether the cluster has the kinds of the Prometheus Operator."""
    return kubectl.succeeds(settings, "get", "crd", OPERATOR_KIND)


def numbers(text: str) -> tuple[int, ...]:
    """Return major and minor version in a text; empty without one."""
    match = re.search(r"v(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else ()
