"""The programs of the test cluster: compiled from Go modules once, and kept by their versions.

Only where kind's image cannot be pulled: a package mirror then still has these modules and packages. containerd and
runc are Docker's own. About 10 minutes of CPU, 6 GB of caches while it compiles, and 0.6 GB for the programs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.child_process import ChildFailedError, run_with_progress
from ops.errors import FAILURE, StackError
from ops.kubernetes.chart import KUBERNETES, cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

HELM: Final = "3.19.4"
COREDNS: Final = "1.12.4"
COMPONENTS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
PACKAGES: Final = ("etcd-server", "containernetworking-plugins")
"""Debian packages that are unpacked beside the programs, not installed."""
FROM_DOCKER: Final = ("containerd", "ctr", "runc", "docker-init")
NEEDED: Final = ("go", "apt-get", "dpkg-deb", "ip", "nsenter", "unshare", "openssl", "iptables", "curl")

STAGED: Final = (
    *("api", "apiextensions-apiserver", "apimachinery", "apiserver", "cli-runtime", "client-go", "cloud-provider"),
    *("cluster-bootstrap", "code-generator", "component-base", "component-helpers", "controller-manager", "cri-api"),
    *("cri-client", "csi-translation-lib", "dynamic-resource-allocation", "endpointslice", "externaljwt", "kms"),
    *("kube-aggregator", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet", "metrics"),
    *("mount-utils", "pod-security-admission", "sample-apiserver", "sample-cli-plugin", "sample-controller"),
)
"""The modules of Kubernetes whose versions its own go.mod leaves open."""

COREDNS_MAIN: Final = """\
package main

import (
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"

	"github.com/coredns/coredns/coremain"
)

func main() { coremain.Run() }
"""
"""CoreDNS with the plugins that a cluster without a network of its own needs."""

PAUSE_MAIN: Final = """\
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for each := range signals {
		if each != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if ended, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); ended <= 0 {
				break
			}
		}
	}
}
"""
"""The container that holds a pod's namespaces, and reaps its orphans."""


def folder() -> Path:
    """Return the folder of the test cluster in this user's cache."""
    return cache_folder() / "kubernetes"


def program(name: str) -> str:
    """Return the path of a built program."""
    return str(folder() / "bin" / name)


def plugins() -> Path:
    """Return the folder of the CNI plugins."""
    return folder() / "packages/usr/lib/cni"


def etcd() -> Path:
    """Return the path of etcd."""
    return folder() / "packages/usr/bin/etcd"


def key() -> str:
    """Return a digest of everything that decides what is built."""
    return hashlib.sha256(
        "\n".join([kubernetes_module(), HELM, COREDNS, COREDNS_MAIN, PAUSE_MAIN]).encode()
    ).hexdigest()


def build(report: Callable[[str], None]) -> None:
    """Build the programs that are missing or of other versions.

    Raises:
        StackError: A tool is missing, or a build failed.
    """
    stamp = folder() / "bin/.built"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key():
        return
    if missing := [name for name in (*NEEDED, *FROM_DOCKER) if not shutil.which(name)]:
        raise StackError(
            f"cannot build the test cluster: {', '.join(missing)} not found",
            hint="install Go, iproute2, iptables, openssl and Docker; or install kind, which needs none of them",
        )
    (folder() / "bin").mkdir(parents=True, exist_ok=True)
    report("building Kubernetes from Go modules: about 10 minutes, once")
    build_kubernetes(report)
    build_module("helm", f"helm.sh/helm/v3@v{HELM}", "helm.sh/helm/v3/cmd/helm", report,
                 f"-X helm.sh/helm/v3/internal/version.version=v{HELM}")  # fmt: skip
    build_module("coredns", f"github.com/coredns/coredns@v{COREDNS}", ".", report, main=COREDNS_MAIN)
    build_module("pause", "", ".", report, main=PAUSE_MAIN)
    unpack_packages(report)
    stamp.write_text(key(), encoding="utf-8")


def kubernetes_module() -> str:
    """Return the go.mod with which Kubernetes is built outside its own repository."""
    replaced = "".join(f"replace k8s.io/{name} => k8s.io/{name} v0{KUBERNETES[1:]}\n" for name in STAGED)
    return f"module build\n\ngo 1.24\n\nrequire k8s.io/kubernetes v{KUBERNETES}\n\n{replaced}"


def build_kubernetes(report: Callable[[str], None]) -> None:
    """Build the components, all with the same flags: other flags would compile everything again."""
    major, minor, _ = KUBERNETES.split(".")
    version = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items())
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "go.mod").write_text(kubernetes_module(), encoding="utf-8")
        for name in COMPONENTS:
            go(temporary, report, *compiled(name, flags), f"k8s.io/kubernetes/cmd/{name}")


def build_module(
    name: str, module: str, package: str, report: Callable[[str], None], flags: str = "", main: str = ""
) -> None:
    """Build one program.

    Args:
        name: Its name.
        module: The module with its version; empty for none but our own file.
        package: The package of the program.
        report: Receives progress lines.
        flags: Further flags of the linker.
        main: The text of a main file of our own.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if main:
            (Path(temporary) / "main.go").write_text(main, encoding="utf-8")
        go(temporary, report, "mod", "init", "build")
        if module:
            go(temporary, report, "get", module)
        go(temporary, report, *compiled(name, flags), package)


def compiled(name: str, flags: str) -> tuple[str, ...]:
    """Return the arguments of `go build` for a program."""
    return "build", "-mod=mod", "-trimpath", "-ldflags", f"-s -w {flags}".strip(), "-o", program(name)


def go(directory: str, report: Callable[[str], None], *arguments: str) -> None:
    """Run a command of Go in a folder."""
    command = ["env", f"--chdir={directory}", "nice", "-n", "10", "go", *arguments]
    try:
        run_with_progress(command, lambda line: line[:100], report, {**os.environ, "CGO_ENABLED": "0"})
    except ChildFailedError as error:
        lines = "\n".join(error.tail[-8:])
        raise StackError(f"cannot build {arguments[-1]}:\n{lines}", hint="run this again", code=FAILURE) from error


def unpack_packages(report: Callable[[str], None]) -> None:
    """Unpack etcd and the CNI plugins from Debian's packages."""
    target = folder() / "packages"
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o755)  # apt's own user downloads
        for command in (["apt-get", "download", *PACKAGES],):
            result = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                reason = result.stderr.strip().splitlines()[-1:]
                hint = "run apt-get update, then this again"
                raise StackError(f"cannot download {', '.join(PACKAGES)}: {reason}", hint=hint, code=FAILURE)
        for package in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, target], check=True)
    report("etcd and CNI plugins unpacked")
