"""`kubernetes`: the same Airflow on Kubernetes, through the official chart."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ops.errors import BAD_INPUT, FAILURE, StackError
from ops.kubernetes import cluster_checks, cluster_settings, drill_results, installation, pod_drills, rendering
from ops.kubernetes.cluster import local_cluster, node_drills
from ops.lock import stack_lock
from ops.project import current_project
from ops.screen import ask_to_confirm, console, escape, heading, report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ops.kubernetes.pod_drills import PodDrill, PodOutcome
    from ops.project import Project

COLOURS = {"ok": "green", "note": "yellow", "failed": "red"}

Given = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, as in compose/.env. Repeatable.")
]
More = Annotated[
    list[Path] | None, typer.Option("--values", metavar="FILE", help="A file of the chart's own values, over ours.")
]

kubernetes = typer.Typer(no_args_is_help=True, help="Run the same Airflow on Kubernetes: ops/kubernetes/README.md.")
cluster = typer.Typer(no_args_is_help=True, help="A Kubernetes cluster of several nodes on this machine, for tests.")
kubernetes.add_typer(cluster, name="cluster")


def current() -> Project:
    """Return the project with its state for Kubernetes."""
    return cluster_settings.kubernetes_project(current_project())


@kubernetes.command()
def render(
    given: Given = None,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the values and the Kustomize base into this folder.")
    ] = None,
) -> None:
    """Print the chart's values, or write them with the manifests beside the chart. No secret is among them.

    Example: ./ops/stack kubernetes render --set AIRFLOW_IMAGE=registry.example.com/airflow-ha:1 > values.yaml
    """
    project = current()
    of = rendering.cluster_of(project, cluster_settings.read(project, given or []))
    texts = rendering.texts(project, of)
    if to is None:
        typer.echo(texts[rendering.VALUES], nl=False)
        return
    try:
        installation.write(to, texts)
    except OSError as error:
        hint = "name a folder that you may write to"
        raise StackError(f"cannot write {error.filename}: {error.strerror}", where="--to", hint=hint) from error
    report(f"wrote {len(texts)} files to {to}")


@kubernetes.command()
def check(given: Given = None) -> None:
    """Check the chart, the tools and the cluster; change nothing.

    Example: ./ops/stack kubernetes check
    """
    project = current()
    if not passes(project, cluster_settings.read(project, given or [])):
        raise typer.Exit(BAD_INPUT)


def passes(project: Project, settings: dict[str, str]) -> bool:
    """Print the result of every check, and return whether none has failed."""
    results = cluster_checks.run(project, settings)
    table = Table("check", "result")
    for result in results:
        hint = f"\nhint: {result.hint}" if result.hint else ""
        table.add_row(result.subject, f"[{COLOURS[result.state]}]{escape(result.detail)}[/]{escape(hint)}")
    console.print(table)
    return all(result.state != "failed" for result in results)


@kubernetes.command()
def install(given: Given = None, more: More = None) -> None:
    """Install Airflow, and verify it with a run of the pipeline. The settings are kept for the next command.

    Example: ./ops/stack kubernetes install --set AIRFLOW_IMAGE=registry.example.com/airflow-ha:1
    """
    change(given or [], more or [], "install")


@kubernetes.command()
def upgrade(given: Given = None, more: More = None) -> None:
    """Bring the installation to the settings, files and image of this checkout, without an outage.

    The Execution API is replaced first, then the chart's components; workers finish their tasks. A new schema of the
    database is migrated by the chart's hook.

    Example: ./ops/stack kubernetes upgrade --set AIRFLOW_IMAGE=registry.example.com/airflow-ha:2
    """
    change(given or [], more or [], "upgrade")


def change(given: list[str], more: list[Path], command: str) -> None:
    """Check, and bring the cluster to the settings."""
    project = current()
    settings = cluster_settings.read(project, given)
    with stack_lock(project, f"kubernetes {command}", report):
        heading("Pre-flight: no impact yet")
        if not passes(project, settings):
            raise StackError("cannot use the cluster: a check has failed", hint="fix it, then run this again")
        heading("Installing" if command == "install" else "Upgrading")
        installation.install(project, settings, cluster_settings.chosen(project, given), more, report)


@kubernetes.command()
def status(given: Given = None) -> None:
    """Show the pods of each component. The exit code is 1 unless all are ready.

    Example: ./ops/stack kubernetes status
    """
    settings = cluster_settings.read(current(), given or [])
    components = installation.components(settings)
    if not components:
        console.print("There is no installation yet. Run ./ops/stack kubernetes install to make one.")
        raise typer.Exit(FAILURE)
    table = Table("component", "ready", "pods")
    for component in components:
        colour = "green" if component.ready >= component.expected else "red"
        ready = f"[{colour}]{component.ready} of {component.expected}[/]"
        table.add_row(component.name, ready, "\n".join(map(escape, component.pods)))
    console.print(table)
    if any(component.ready < component.expected for component in components):
        raise typer.Exit(FAILURE)


@kubernetes.command()
def drill(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="The drills to run; none lists them.")
    ] = None,
    given: Given = None,
    every: Annotated[
        bool, typer.Option("--all", help="Run every drill; those of the test cluster only there.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, max=50, help="Repetitions of each drill.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Write the results to ops/kubernetes/RESULTS.md.")] = False,
) -> None:
    """Inject faults while tasks run, and check that every task succeeds, each once.

    Example: ./ops/stack kubernetes drill worker-pod upgrade --repeat 3
    """
    known = {each.name: each for each in ALL_DRILLS}
    if not names and not every:
        table = Table(*drill_results.PROMISE_HEADINGS)
        for each in ALL_DRILLS:
            table.add_row(*map(escape, drill_results.promise(each)))
        console.print(table)
        return
    if unknown := set(names or []) - known.keys():
        raise StackError(
            f"cannot run {', '.join(sorted(unknown))}: there is no such drill", hint=f"use one of: {', '.join(known)}"
        )
    project = current()
    settings = cluster_settings.read(project, given or [])
    has_test_cluster = bool(local_cluster.all_nodes())
    chosen = [known[name] for name in names or []] or [
        each for each in ALL_DRILLS if each in pod_drills.DRILLS or has_test_cluster
    ]
    with stack_lock(project, "kubernetes drill", report):
        outcomes = run_drills(project, settings, chosen, repeat, write=write)
    if any(outcome.broken for outcome in outcomes):
        raise typer.Exit(FAILURE)


ALL_DRILLS = (*pod_drills.DRILLS, *node_drills.DRILLS)


def run_drills(
    project: Project, settings: dict[str, str], chosen: Sequence[PodDrill], repeat: int, *, write: bool
) -> list[PodOutcome]:
    """Run drills one after the other, print what they cost, and return it."""
    of = rendering.cluster_of(project, settings)
    copy = partial(installation.copy_dags, project, of, report)
    connect = partial(installation.airflow, project, settings, report)
    outcomes: list[PodOutcome] = []
    try:
        for each in chosen:
            for number in range(1, repeat + 1):
                heading(f"{each.name}, {number} of {repeat}: {each.fault}")
                outcomes.append(pod_drills.run(each, of, connect, copy, report))
                report("; ".join(outcomes[-1].broken) or "all promises kept")
    finally:
        # The results are printed and kept even if a later drill cannot be run.
        shared = " that share one machine" if local_cluster.all_nodes() else ""
        where, date = installation.size(settings) + shared, datetime.now(UTC).date().isoformat()
        found = drill_results.merged({}, ALL_DRILLS, outcomes, where, date)
        table = Table(*drill_results.HEADINGS)
        for each in ALL_DRILLS:
            if each.name in found:
                table.add_row(*map(escape, drill_results.row(each, found[each.name])))
        console.print(table)
        if write:
            names = [outcome.drill for outcome in outcomes]
            complete = [outcome for outcome in outcomes if names.count(outcome.drill) == repeat]
            drill_results.write(ALL_DRILLS, complete, where, date)
    return outcomes


@kubernetes.command()
def uninstall(
    given: Given = None,
    volumes: Annotated[bool, typer.Option("--volumes", help="Delete the namespace, with volumes and secrets.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Remove the installation. Volumes and secrets are kept without --volumes.

    Example: ./ops/stack kubernetes uninstall
    """
    project = current()
    settings = cluster_settings.read(project, given or [])
    if volumes and not yes:
        ask_to_confirm(f"Delete the namespace {settings['KUBERNETES_NAMESPACE']} with its volumes?")
    with stack_lock(project, "kubernetes uninstall", report):
        installation.uninstall(settings, report, volumes=volumes)


@cluster.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, max=5, help="How many nodes.")] = 2,
) -> None:
    """Start a test cluster of Linux namespaces, from programs that are built once.

    Where images can be pulled, kind is the shorter way.

    Example: ./ops/stack kubernetes cluster up --nodes 3
    """
    local_cluster.up(current(), nodes, report)
    console.print(f"export KUBECONFIG={local_cluster.kubeconfig()}")


@cluster.command()
def down() -> None:
    """Remove the test cluster and everything that it has left on this machine.

    Example: ./ops/stack kubernetes cluster down
    """
    local_cluster.down(report)


@cluster.command()
def build() -> None:
    """Build the programs of the test cluster, or find them built.

    Example: ./ops/stack kubernetes cluster build
    """
    local_cluster.build(report)
