"""A `docker` that answers as a daemon with these images does, and records its calls."""

from __future__ import annotations

from pathlib import Path

import pytest

FAKE_DOCKER = """\
#!/bin/sh
# In $FAKE_DOCKER: `local`, the images; `calls`; `registry`: answers, is-slow, refuses, unreachable or hangs.
echo "$*" >> "$FAKE_DOCKER/calls"
for last; do :; done
case "$1 $2" in
  "image inspect") grep -qxF "$last" "$FAKE_DOCKER/local" ;;
  "pull "*)
    case $(cat "$FAKE_DOCKER/registry") in
      answers | is-slow)
        echo "$last: Pulling from somewhere"
        echo "aaa: Pulling fs layer"
        while grep -q is-slow "$FAKE_DOCKER/registry"; do sleep 0.05; done
        echo "aaa: Pull complete"
        echo "$last" >> "$FAKE_DOCKER/local" ;;
      refuses) echo "Error response from daemon: manifest for $last not found: manifest unknown"; exit 1 ;;
      unreachable) echo "Error response from daemon: dial tcp: lookup registry.test: no such host"; exit 1 ;;
      hangs) exec sleep 600 ;;
    esac ;;
  "build "*)
    while [ "$1" != --tag ]; do shift; done
    echo "$2" >> "$FAKE_DOCKER/local" ;;
  "import "*) echo "$last" >> "$FAKE_DOCKER/local" ;;
  *) echo "unexpected: $*" >&2; exit 64 ;;
esac
"""


class Daemon:
    """The state of the fake daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has()
        self.registry("unreachable")

    def has(self, *references: str) -> None:
        (self.folder / "local").write_text("".join(f"{reference}\n" for reference in references))

    def local(self) -> list[str]:
        return (self.folder / "local").read_text().splitlines()

    def registry(self, behaviour: str) -> None:
        (self.folder / "registry").write_text(behaviour)

    def calls(self, verb: str) -> list[str]:
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if line.startswith(verb)]

    def forget_calls(self) -> None:
        (self.folder / "calls").unlink()


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(FAKE_DOCKER)
    (programs / "mmdebstrap").write_text("#!/bin/sh\nexit 0\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path))
    return Daemon(tmp_path)
