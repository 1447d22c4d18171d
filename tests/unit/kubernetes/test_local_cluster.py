"""The test cluster: what is built, and where its parts are."""

from __future__ import annotations

import json
import subprocess

import pytest

from ops.kubernetes.chart import KUBERNETES
from ops.kubernetes.cluster import certificates, local_cluster, nodes, programs
from ops.kubernetes.cluster.networks import Node
from tests.unit.kubernetes.rendered import manifests_with

NODES = [Node(number) for number in range(1, 4)]


def test_every_staged_module_has_the_version_of_kubernetes():
    lines = programs.kubernetes_module().splitlines()
    assert f"require k8s.io/kubernetes v{KUBERNETES}" in lines
    assert f"replace k8s.io/kubelet => k8s.io/kubelet v0{KUBERNETES[1:]}" in lines


@pytest.mark.parametrize("data", ["data", "data-ha"])
def test_the_cluster_has_every_image_that_is_installed(data):
    known = {key: f"test/{key}:1" for key in local_cluster.IMAGES}
    given = [f"COMPOSE_PROFILES={data},flower,observability", *(f"{key}={image}" for key, image in known.items())]
    used = {
        container["image"]
        for manifest in manifests_with(*given)
        if manifest["kind"] in {"Deployment", "StatefulSet"}
        for kind in ("initContainers", "containers")
        for container in manifest["spec"]["template"]["spec"].get(kind, ())
    }
    assert known["GATEWAY_IMAGE"] in used
    assert used <= set(known.values())


def test_a_strict_client_accepts_every_certificate(tmp_path):
    certificates.create(tmp_path, NODES)
    own = sorted(path.name for path in tmp_path.glob("*.crt") if path.name != "ca.crt")
    assert {"apiserver.crt", "node-1.crt", "admin.crt"} <= set(own)
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", *own]
    done = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nodes_share_no_address_folder_or_link():
    for part in ("name", "address", "pods", "link", "namespace"):
        assert len({getattr(node, part) for node in NODES}) == len(NODES)
    assert all(len(node.link) <= 15 for node in NODES), "the kernel's limit of a link's name"


def test_the_configuration_of_a_node_is_inside_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "pki"
    folder.mkdir()
    certificates.write_config(folder, "node-1")
    files = nodes.files(NODES[0], folder)
    kubelet = json.loads(files["kubelet.yaml"])
    assert kubelet["podLogsDir"].startswith(str(nodes.state(NODES[0])))
    assert f'root = "{nodes.state(NODES[0])}/containerd"' in files["containerd.toml"]


def test_a_volume_of_one_node_binds_its_pods_to_that_node(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    objects = local_cluster.storage(NODES)
    local = [
        each for each in objects if each["spec" if "spec" in each else "metadata"].get("storageClassName") == "local"
    ]
    assert len(local) == len(NODES) * local_cluster.VOLUMES_PER_NODE
    assert all("nodeAffinity" in each["spec"] for each in local)
