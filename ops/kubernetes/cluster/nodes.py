"""The nodes of the test cluster: containerd, kubelet and kube-proxy in namespaces of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from ops.kubernetes.cluster import certificates, image_store, networks, processes, programs
from ops.kubernetes.cluster.networks import CONTROL_ADDRESS, PODS, Node

CGROUPS: Final = Path("/sys/fs/cgroup")
HIERARCHIES: Final = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified")
OWN_FOLDERS: Final = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")
"""Folders of this machine that kubelet and CNI plugins write whatever their settings: each node gets its own."""
INIT: Final = Path(__file__).with_name("node-init.sh")


def state(node: Node) -> Path:
    """Return the folder of a node's files."""
    return programs.folder() / "nodes" / node.name


def start(node: Node, pki: Path) -> None:
    """Start a node, or start one again that was powered off: its data is kept, as on a disk.

    Args:
        node: The node.
        pki: The folder of the certificates.
    """
    folder = state(node)
    shutil.rmtree(folder / "run", ignore_errors=True)
    for name in ("run", "cni", "kubelet"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / "containerd").exists():
        image_store.copy_to(folder / "containerd")
    create_cgroups(node)
    for name, text in files(node, pki).items():
        (folder / name).write_text(text, encoding="utf-8")
    init = ["sh", str(INIT), node.name, str(folder), str(programs.folder() / "bin")]
    own = ["--mount", "--propagation=private", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    # docker-init reaps what the pods leave behind.
    processes.start(node.namespace, node.name, ["unshare", *own, "docker-init", "-s", "--", *init])


def power_off(node: Node) -> None:
    """Cut a node's network and kill all its processes at once."""
    networks.set_link(node, "down")
    processes.kill_child(node.name)
    unmount(node)


def power_on(node: Node, pki: Path) -> None:
    """Start a node that was powered off."""
    networks.set_link(node, "up")
    start(node, pki)


def remove(node: Node) -> None:
    """Stop a node, and remove its files and control groups."""
    processes.kill_child(node.name)
    unmount(node)
    remove_cgroups(node)
    shutil.rmtree(state(node), ignore_errors=True)


def unmount(node: Node) -> None:
    """Unmount what a killed node has left in this machine's mounts."""
    prefix = f"{state(node)}/"
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    for target in sorted((path for path in mounted if path.startswith(prefix)), reverse=True):
        subprocess.run(["umount", "--lazy", target], capture_output=True, check=False)


# ---- control groups, version 1


def cgroup_path(node: Node) -> str:
    """Return the control group of a node's pods: below that of this process, so that its priority holds for them."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = next((path for _, names, path in (line.split(":", 2) for line in lines) if "cpu" in names.split(",")), "/")
    return f"{own.rstrip('/')}/kube-{node.name}"


def create_cgroups(node: Node) -> None:
    """Create a node's control group in every hierarchy, as kubelet requires; list the created ones."""
    with (state(node) / CREATED).open("a", encoding="utf-8") as created:
        for hierarchy in (CGROUPS / name for name in HIERARCHIES if (CGROUPS / name).is_dir()):
            folder = hierarchy
            for part in cgroup_path(node).strip("/").split("/"):
                folder /= part
                if folder.exists():
                    continue
                folder.mkdir()
                created.write(f"{folder}\n")
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if (folder / name).exists():
                        (folder / name).write_text((folder.parent / name).read_text(encoding="utf-8"), encoding="utf-8")


def remove_cgroups(node: Node) -> None:
    """Remove the control groups that a node has created, with those of its pods."""
    listed = state(node) / CREATED
    for line in reversed(listed.read_text(encoding="utf-8").split() if listed.exists() else []):
        own = Path(line)
        # Only of the node itself: a group above it may have others by now, and is removed if it is empty.
        below = sorted(own.rglob("*"), reverse=True) if own.name == f"kube-{node.name}" and own.exists() else []
        for folder in [*(path for path in below if path.is_dir()), own]:
            subprocess.run(["rmdir", str(folder)], capture_output=True, check=False)


CREATED: Final = "cgroups"
"""The list of a node's control groups: who removes it may be in another group than who started it."""


# ---- configuration


def files(node: Node, pki: Path) -> dict[str, str]:
    """Return the text of a node's configuration files, by name."""
    folder = state(node)
    return {
        "address": node.address,
        "own-folders": "".join(f"{folder}\n" for folder in OWN_FOLDERS),
        "resolv.conf": "",
        "kubelet.conf": certificates.config(pki, node.name).read_text(encoding="utf-8"),
        "kubelet.yaml": json.dumps(kubelet(node, pki)),
        "proxy.yaml": json.dumps(proxy(node, pki)),
        "cni/10-bridge.conflist": json.dumps(bridge(node)),
        "containerd.toml": image_store.CONFIG.format(
            root=folder / "containerd",
            state=folder / "run/containerd",
            socket=folder / "run/containerd.sock",
            opt=folder / "opt",
            disabled=image_store.disabled(),
        )
        + PODS_CONFIG.format(
            pause=image_store.PAUSE, plugins=programs.plugins(), cni=folder / "cni", run=folder / "run"
        ),
    }


PODS_CONFIG: Final = """\
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{pause}"
  disable_apparmor = true
  # This machine may not lower the score of a process.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
"""


def kubelet(node: Node, pki: Path) -> dict[str, Any]:
    """Return the configuration of kubelet."""
    folder = state(node)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_path(node),
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [CONTROL_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{folder / 'run/containerd.sock'}",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            **dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "1%"),
        },
        "makeIPTablesUtilChains": False,
        "healthzPort": 0,
        "maxPods": 60,
        "nodeStatusUpdateFrequency": "5s",
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "staticPodPath": "",
    }


def proxy(node: Node, pki: Path) -> dict[str, Any]:
    """Return the configuration of kube-proxy; the machine's limits of connections stay as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(certificates.config(pki, certificates.PROXY))},
        "bindAddress": node.address,
        "healthzBindAddress": "",
        "metricsBindAddress": "",
        "clusterCIDR": PODS,
        "hostnameOverride": node.name,
        "mode": "iptables",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def bridge(node: Node) -> dict[str, Any]:
    """Return the network of a node's pods. A bridge enforces no network policy."""
    addresses = {
        "type": "host-local",
        "dataDir": str(state(node) / "cni-data"),
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin, port_map]}
