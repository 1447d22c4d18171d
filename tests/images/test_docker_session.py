"""A killed test session leaves nothing in Docker."""

from __future__ import annotations

import subprocess
import sys
import time

from ops.project import ROOT
from tests.docker_session import KINDS, left_behind

KILLED_HALF_WAY = """
import os, signal, subprocess
from tests.docker_session import session_name
name = session_name()
for kind in ("network", "volume"):
    subprocess.run(["docker", kind, "create", f"{name}-{kind}"], check=True, capture_output=True)
subprocess.run(["docker", "run", "--detach", "--name", f"{name}-one", f"--volume={name}-volume:/data",
                "--label", f"com.docker.compose.project={name}", "IMAGE", "1000"], check=True, capture_output=True)
print(name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_sessions_resources_are_removed(images):
    image = images["REDIS_IMAGE"].reference
    script = KILLED_HALF_WAY.replace('"IMAGE"', f'"--entrypoint=sleep", "{image}"')
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    name = done.stdout.strip()
    assert name, done.stderr
    deadline = time.monotonic() + 60
    while any(left_behind(name, kind) for kind in KINDS):
        assert time.monotonic() < deadline, {kind: left_behind(name, kind) for kind in KINDS}
        time.sleep(0.2)
