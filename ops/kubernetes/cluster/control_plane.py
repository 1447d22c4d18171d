"""The control plane of the test cluster: etcd, API server, controller manager, scheduler and DNS."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from ops.kubernetes.cluster import certificates, processes, programs
from ops.kubernetes.cluster.networks import API_SERVER, CONTROL, CONTROL_ADDRESS, PODS, SERVICES, inside
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ETCD: Final = "http://127.0.0.1:2379"
NAMES: Final = ("coredns", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
"""The processes, in the order in which they are stopped: etcd goes last, since the API server lingers without it."""
READY_SECONDS: Final = 120.0
NODE_GRACE: Final = "20s"
"""A node counts as down after this. Kubernetes' default is 50 s."""


def start(state: Path, pki: Path, report: Callable[[str], None]) -> None:
    """Start the control plane, and wait until the API server is ready.

    Args:
        state: The folder of etcd's data.
        pki: The folder of the certificates.
        report: Receives progress lines.
    """
    # Tests survive no power cut of this machine: no fsync.
    data = ("--name=etcd", f"--data-dir={state / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn")
    clients = (f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}")
    processes.start(
        CONTROL, "etcd", [str(programs.etcd()), *data, *clients, "--listen-peer-urls=http://127.0.0.1:2380"]
    )
    processes.start(CONTROL, "kube-apiserver", [programs.program("kube-apiserver"), *api_server_options(pki)])
    wait(lambda: is_ready(pki), READY_SECONDS, "the API server is ready", report, poll_seconds=0.3)
    for name, options in {
        "kube-controller-manager": [*controller_options(pki), f"--flex-volume-plugin-dir={state / 'plugins'}"],
        "kube-scheduler": client_options(pki, certificates.SCHEDULER),
    }.items():
        processes.start(CONTROL, name, [programs.program(name), *options, "--leader-elect=false", "--profiling=false"])
    corefile = state / "Corefile"
    corefile.write_text(COREFILE.format(config=certificates.config(pki, certificates.COREDNS)), encoding="utf-8")
    processes.start(CONTROL, "coredns", [programs.program("coredns"), "-conf", str(corefile)])


COREFILE: Final = f"""\
.:53 {{{{
  bind {CONTROL_ADDRESS}
  errors
  ready {CONTROL_ADDRESS}:8181
  kubernetes cluster.local {PODS} {SERVICES} {{{{
    kubeconfig {{config}}
    pods insecure
  }}}}
  cache 5
}}}}
"""


def api_server_options(pki: Path) -> list[str]:
    """Return the options of the API server."""
    return [
        f"--etcd-servers={ETCD}",
        f"--advertise-address={CONTROL_ADDRESS}",
        f"--bind-address={CONTROL_ADDRESS}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'accounts.key'}",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controller_options(pki: Path) -> list[str]:
    """Return the options of the controller manager."""
    return [
        *client_options(pki, certificates.CONTROLLER),
        f"--service-account-private-key-file={pki / 'accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        "--use-service-account-credentials",
        f"--cluster-cidr={PODS}",
        "--allocate-node-cidrs=false",
        f"--node-monitor-grace-period={NODE_GRACE}",
        "--node-monitor-period=2s",
    ]


def client_options(pki: Path, client: str) -> list[str]:
    """Return the options by which a component logs in to the API server."""
    path = certificates.config(pki, client)
    return [f"--{name}kubeconfig={path}" for name in ("", "authentication-", "authorization-")]


def is_ready(pki: Path) -> bool:
    """Return whether the API server is ready."""
    login = ("--cert", str(pki / "admin.crt"), "--key", str(pki / "admin.key"), "--cacert", str(pki / "ca.crt"))
    command = inside(CONTROL, "curl", "--silent", "--max-time", "2", *login, f"{API_SERVER}/readyz")
    return subprocess.run(command, capture_output=True, check=False).stdout.startswith(b"ok")


def stop() -> None:
    """Stop the control plane."""
    for name in NAMES:
        processes.stop(name)
