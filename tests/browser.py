"""A headless Chromium, driven by chromedriver: https://www.w3.org/TR/webdriver2/."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's id, by the standard."""
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--ignore-certificate-errors"]
TIMEOUTS = {"implicit": 30000, "script": 60000, "pageLoad": 180000}
"""Milliseconds, for a machine whose cores are busy. A page has its address before it has its elements (implicit)."""


class Browser:
    """One session of a browser, with cookies of its own."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self.http = http
        self.session = session

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.http.request(method, f"/session/{self.session}{path}", json=body if method == "POST" else None)
        value = answer.json()["value"]
        if answer.is_error:
            raise LookupError(f"{value['error']}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        return str(self._call("GET", "/url"))

    @property
    def text(self) -> str:
        """The page as a user reads it."""
        return str(self.run("return document.body ? document.body.innerText : ''"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Return the result of a function's body in the page; `await` is allowed."""
        ended = "const end = arguments[arguments.length - 1];"
        body = f"{ended} (async () => {{ {script} }})().then(end, error => end(`${{error}}`))"
        return self._call("POST", "/execute/async", {"script": body, "args": list(arguments)})

    def status(self, path: str) -> int:
        """Return the status of a GET that the page's own script sends."""
        return int(self.run("return (await fetch(arguments[0])).status", path))

    def _element(self, selector: str) -> str:
        found: dict[str, str] = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def fill(self, selector: str, text: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/click", {})

    def cookies(self) -> dict[str, str]:
        """Return the cookies that this page gets."""
        return {each["name"]: each["value"] for each in self._call("GET", "/cookie")}

    def set_cookie(self, name: str, value: str) -> None:
        self._call("POST", "/cookie", {"cookie": {"name": name, "value": value, "path": "/", "httpOnly": True}})

    def screenshot(self) -> str:
        """Return a picture of the page as PNG in base64."""
        return str(self._call("GET", "/screenshot"))

    def end(self) -> None:
        self._call("DELETE", "")


class Browsers:
    """Opens browsers that share nothing."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.opened: list[Browser] = []

    def open(self) -> Browser:
        chosen = {"goog:chromeOptions": {"args": OPTIONS}, "timeouts": TIMEOUTS}
        answer = self.http.post("/session", json={"capabilities": {"alwaysMatch": chosen}})
        assert answer.is_success, answer.text
        self.opened.append(Browser(self.http, answer.json()["value"]["sessionId"]))
        return self.opened[-1]

    def end_all(self) -> None:
        """End every browser: Airflow's UI asks for news every few seconds."""
        while self.opened:
            self.opened.pop().end()


def install() -> None:
    """Install chromedriver and Chromium from Debian's packages where they are missing.

    Raises:
        AssertionError: They cannot be installed here.
    """
    if shutil.which("chromedriver"):
        return
    hint = "cannot start a browser: chromedriver is missing\nhint: install the package chromium-driver"
    assert shutil.which("apt-get"), hint
    assert os.geteuid() == 0, hint
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, f"{hint}\n{done.stderr}"


@contextmanager
def browsers(folder: Path) -> Iterator[Browsers]:
    """Run chromedriver for the duration of the block, and end every browser with it.

    Args:
        folder: For its log.
    """
    install()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with (folder / "chromedriver.log").open("wb") as log:
        process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as http:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    if http.get("/status").json()["value"]["ready"]:
                        break
                time.sleep(0.2)
            yield Browsers(http)
    finally:
        with suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/shutdown", timeout=30)
        process.kill()
        process.wait()
