"""`kubernetes install`, `upgrade`, `status` and `uninstall`: secrets and base by kubectl, the chart by helm."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_ha.sizes import GIB
from ops import secrets_store, settings_file
from ops.clients.airflow import connect
from ops.errors import FAILURE, StackError
from ops.kubernetes import chart, cluster_checks, kubectl, remote_parts, rendering, translation, values
from ops.kubernetes.data_nodes import components_of
from ops.kubernetes.translation import API_PORT, EXECUTION_API
from ops.pipeline import run_pipeline
from ops.project import dags_folder
from ops.services import GATEWAY
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ops.clients.airflow import AirflowClient
    from ops.kubernetes.translation import Cluster, Manifest
    from ops.project import Project

ROLLOUT_SECONDS: Final = 900.0
HELM_TIMEOUT: Final = "20m"
CANARY: Final = "canary_dag"
CANARY_SECONDS: Final = 300.0
MIGRATION_LOG: Final = "migration.log"
"""The chart deletes the migration's pod with its log once it has succeeded."""
CHART_ORDER: Final = ("api-server", "scheduler", "worker", "dag-processor", "triggerer")
"""The order in which an upgrade waits for the chart's components, after the Execution API: an older worker may use a
newer Execution API, but no newer worker an older one."""
COPY_POD: Final = f"{translation.PREFIX}-dags"


def install(
    project: Project,
    settings: dict[str, str],
    given: Mapping[str, str],
    more: Sequence[Path],
    report: Callable[[str], None],
) -> None:
    """Install, or bring an installation to the current settings, files and image; then verify it with a pipeline run.

    Args:
        project: The project with the state for Kubernetes.
        settings: Checked settings.
        given: The settings that .env keeps.
        more: Further files of the chart's values.
        report: Receives progress lines.
    """
    project.state.mkdir(parents=True, exist_ok=True)
    settings_file.write(project, given)
    secrets_store.generate(project)
    cluster = rendering.cluster_of(project, settings)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, rendering.texts(project, cluster))
        apply_data(project, cluster, folder, report)
        kubectl.apply_folder(settings, folder / rendering.CORE)
        if not remote_parts.has_git(settings):
            copy_dags(project, cluster, report)
        with kept_log(settings, project.state / MIGRATION_LOG):
            kubectl.run_helm(
                settings,
                report,
                *("upgrade", "--install", settings["KUBERNETES_RELEASE"], str(chart.archive())),
                *(f"--values={file}" for file in (folder / rendering.VALUES, *more)),
                f"--timeout={HELM_TIMEOUT}",
            )
        report("the database is migrated")
        wait_for_components(cluster, report)
        if rendering.MONITORING in rendering.base(project, cluster) and cluster_checks.has_operator(settings):
            kubectl.apply_folder(settings, folder / rendering.MONITORING)
    with airflow(project, settings, report) as api:
        verify(api, report)


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files below a folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def apply_data(project: Project, cluster: Cluster, folder: Path, report: Callable[[str], None]) -> None:
    """Apply the namespace, the secrets and the data tier, and wait until that is ready."""
    settings = cluster.settings
    namespace, *_ = rendering.base(project, cluster)[rendering.CORE]["namespace"]
    kubectl.apply(settings, namespace)
    kubectl.apply(settings, *rendering.secrets(project, cluster))
    if (folder / rendering.DATA).exists():
        kubectl.apply_folder(settings, folder / rendering.DATA)
        for component in components_of(cluster.profiles):
            kubectl.wait_for_rollout(settings, f"statefulset/{component}", ROLLOUT_SECONDS, report)
        report("Postgres and Redis are ready")


def wait_for_components(cluster: Cluster, report: Callable[[str], None]) -> None:
    """Wait until every Deployment is ready, in the order of an upgrade."""
    settings, release = cluster.settings, cluster.release
    own = [name for name in deployments(settings) if not name.startswith(f"{release}-")]
    for name in (GATEWAY, EXECUTION_API, *(f"{release}-{component}" for component in CHART_ORDER), *own):
        kubectl.wait_for_rollout(settings, f"deployment/{name}", ROLLOUT_SECONDS, report)
    report("every component is ready")


def deployments(settings: Mapping[str, str]) -> list[str]:
    """Return the names of this installation's Deployments."""
    items = kubectl.labelled(settings, ["deployments"], f"release={settings['KUBERNETES_RELEASE']}")
    return [item["metadata"]["name"] for item in items]


# ---- DAGs


def copy_dags(
    project: Project, cluster: Cluster, report: Callable[[str], None], besides: Mapping[str, str] | None = None
) -> None:
    """Make the shared volume of DAG files equal to the folder, through a pod that may write there.

    Args:
        project: The project.
        cluster: The cluster.
        report: Receives a line of progress.
        besides: Further files, by name.
    """
    settings = cluster.settings
    folder = dags_folder(project, settings)
    kubectl.output(settings, "delete", "pod", COPY_POD, "--ignore-not-found", "--wait=true")
    kubectl.apply(settings, copy_pod(cluster))
    try:
        kubectl.output(
            settings, "wait", "--for=condition=Ready", f"pod/{COPY_POD}", f"--timeout={ROLLOUT_SECONDS:.0f}s"
        )
        result = subprocess.run(
            kubectl.command(settings, "exec", "--stdin", COPY_POD, "--", "python", "-c", REPLACE_FILES),
            input=packed(folder, besides or {}),
            capture_output=True,
            check=False,
        )
        if result.returncode != 0:
            message = result.stderr.decode(errors="replace").strip()
            raise StackError(f"cannot copy the DAG files: {message}", where=str(folder), code=FAILURE)
    finally:
        kubectl.output(settings, "delete", "pod", COPY_POD, "--wait=false", "--grace-period=0", "--ignore-not-found")
    report(f"copied the DAG files of {project.shown(folder)}")


REPLACE_FILES: Final = """
import pathlib, sys, tarfile
root = pathlib.Path("/dags")
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    archive.extractall(root, filter="data")
    kept = {root / name for name in archive.getnames()}
for path in sorted(root.rglob("*"), reverse=True):
    if path not in kept and path.is_file():
        path.unlink()
"""
"""Writes the files of an archive, and removes what is not in it."""


def packed(folder: Path, besides: Mapping[str, str]) -> bytes:
    """Return an archive of a folder without compiled files, and of further files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            if "__pycache__" not in path.parts and path.is_file():
                archive.add(path, arcname=str(path.relative_to(folder)))
        for name, text in besides.items():
            content = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def copy_pod(cluster: Cluster) -> Manifest:
    """Return the pod through which DAG files are copied."""
    of = cluster.service("migrate")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": COPY_POD, "labels": {"component": COPY_POD}},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(ROLLOUT_SECONDS),
            "securityContext": values.POD_SECURITY,
            "containers": [
                {
                    "name": "copy",
                    "image": of.service["image"],
                    "imagePullPolicy": cluster.settings["KUBERNETES_PULL_POLICY"],
                    "args": ["python", "-c", f"import time; time.sleep({ROLLOUT_SECONDS:.0f})"],
                    "securityContext": values.CONTAINER_SECURITY,
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                    "volumeMounts": [{"name": translation.claim(translation.DAGS), "mountPath": "/dags"}],
                }
            ],
            "volumes": translation.shared_volumes([{"name": translation.claim(translation.DAGS)}], cluster.settings),
        },
    }


# ---- the migration's log


@contextlib.contextmanager
def kept_log(settings: Mapping[str, str], path: Path) -> Iterator[None]:
    """Keep the log of the migration's pods in a file during the block."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.is_set():
            with path.open("ab") as log:
                child = subprocess.Popen(
                    kubectl.command(
                        settings,
                        "logs",
                        "--selector=component=run-airflow-migrations",
                        "--follow",
                        "--tail=-1",
                        "--prefix",
                    ),
                    stdout=log,
                    stderr=subprocess.DEVNULL,
                )
                while child.poll() is None:
                    if ended.wait(0.5):
                        child.terminate()
            ended.wait(1)

    path.unlink(missing_ok=True)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


# ---- verification


@contextlib.contextmanager
def airflow(project: Project, settings: Mapping[str, str], report: Callable[[str], None]) -> Iterator[AirflowClient]:
    """Yield a client of Airflow's REST API, through a forwarded port of the gateway."""
    with kubectl.forwarded(settings, f"service/{GATEWAY}", API_PORT) as port:
        yield connect(project, {**settings, "AIRFLOW_PORT": str(port), "BIND_ADDRESS": "127.0.0.1"}, report)


def verify(api: AirflowClient, report: Callable[[str], None]) -> None:
    """Verify that the canary succeeds by itself, and the pipeline when it is triggered.

    Raises:
        StackError: One has not.
    """
    wait(
        lambda: api.newest_success(CANARY),
        CANARY_SECONDS,
        f"{CANARY} has succeeded",
        report,
        hint="run ./ops/stack kubernetes status, then kubectl logs of the scheduler and of a worker",
    )
    report(f"{CANARY} has succeeded")
    run_pipeline(api)


# ---- status


class Component(NamedTuple):
    """The pods of one component.

    Attributes:
        name: The component.
        ready: How many are ready.
        expected: How many there should be.
        pods: A line about each pod.
    """

    name: str
    ready: int
    expected: int
    pods: list[str]


def components(settings: Mapping[str, str]) -> list[Component]:
    """Return the state of every component of the installation."""
    label = f"release={settings['KUBERNETES_RELEASE']}"
    pods = [pod for pod in kubectl.labelled(settings, ["pods"], label) if pod["status"]["phase"] != "Succeeded"]
    expected = {
        item["spec"]["template"]["metadata"]["labels"]["component"]: int(item["spec"]["replicas"])
        for item in kubectl.labelled(settings, ["deployments", "statefulsets"], label)
    }
    return [
        Component(
            name,
            sum(is_ready(pod) for pod in pods if pod["metadata"]["labels"]["component"] == name),
            number,
            [pod_line(pod) for pod in pods if pod["metadata"]["labels"]["component"] == name],
        )
        for name, number in sorted(expected.items())
    ]


def is_ready(pod: Manifest) -> bool:
    """Return whether a pod is ready and stays."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def pod_line(pod: Manifest) -> str:
    """Return name, node, state and restarts of a pod."""
    containers = pod["status"].get("containerStatuses", [])
    waiting = next((each["state"]["waiting"]["reason"] for each in containers if "waiting" in each["state"]), "")
    state = "stopping" if "deletionTimestamp" in pod["metadata"] else waiting or pod["status"]["phase"]
    restarts = sum(each["restartCount"] for each in containers)
    node = pod["spec"].get("nodeName", "no node")
    return f"{pod['metadata']['name']}  {node}  {state}" + (f", {restarts} restarts" if restarts else "")


def size(settings: Mapping[str, str]) -> str:
    """Return the size of the cluster, such as `2 nodes of 2 cores and 24 GiB`."""
    nodes = kubectl.read(settings, "nodes")["items"]
    capacity = nodes[0]["status"]["capacity"]
    memory = int(capacity["memory"].removesuffix("Ki")) * 1024 / GIB
    return f"{len(nodes)} nodes of {capacity['cpu']} cores and {memory:.0f} GiB"


# ---- removal


def uninstall(settings: Mapping[str, str], report: Callable[[str], None], *, volumes: bool) -> None:
    """Remove the chart's release and the base; keep the volumes unless they are to go.

    Args:
        settings: The settings.
        report: Receives progress lines.
        volumes: Whether to delete the whole namespace, with volumes and secrets.
    """
    kubectl.run_helm(settings, report, "uninstall", settings["KUBERNETES_RELEASE"], "--ignore-not-found")
    if volumes:
        kubectl.output(settings, "delete", "namespace", settings["KUBERNETES_NAMESPACE"], "--ignore-not-found")
        report("deleted the namespace with its volumes")
        return
    kinds = ("deployments", "statefulsets", "services", "networkpolicies", "poddisruptionbudgets", "configmaps")
    kubectl.output(settings, "delete", ",".join(kinds), f"--selector=app.kubernetes.io/part-of={translation.PREFIX}")
    report("removed the installation; volumes and secrets are kept")
