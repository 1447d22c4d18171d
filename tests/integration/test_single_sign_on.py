"""Users log in at a real OpenID Connect provider with a browser, and open every page with that log-in.

The stack gets the provider as an operator would do it: by `.env`, two files in `secrets/`, and `./ops/stack up`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest

from ops import token_keys
from ops.services import local_url
from tests.browser import Browser, Browsers, browsers
from tests.oidc_server import OidcServer, oidc_server
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.nightly  # two `up`, which replace the API servers and the door of the pages

GROUPS = {"ann": ["platform"], "bob": ["data"], "carol": ["platform"], "eve": ["other"], "admin": ["platform"]}
ROLES = "platform=Op,data=User"
PAGES = {
    "alertmanager": "/api/v2/status", "flower": "/api/workers", "prometheus": "/api/v1/query?query=up",
    "slack_stub": "/",
}  # fmt: skip
"""What a user opens of each page; some fallback images have no other page."""
REVOKED_SECONDS = 90
"""FAB keeps a user for 30 s, the door of the pages an accepted session for 30 s."""


@dataclass
class SingleSignOn:
    """A stack whose users log in at a provider."""

    stack: Stack
    provider: OidcServer
    running: ExitStack
    browsers: Browsers

    @property
    def airflow(self) -> str:
        return self.stack.airflow_url

    def page(self, name: str, path: str = "/") -> str:
        return local_url(self.stack.settings, name) + path

    def try_to_log_in(self, name: str) -> Browser:
        """Return a new browser, after a user's log-in at the provider; the provider asks for no certain password."""
        browser = self.browsers.open()
        browser.open(f"{self.airflow}/auth/login/")
        browser.click("#btn-signin-sso")
        wait_until(lambda: browser.url.startswith(self.provider.issuer), timeout=60, what="the provider asks")
        browser.fill("[name=login]", name)
        browser.fill("[name=password]", "any")
        browser.click("[type=submit]")
        if "consent" in browser.run("return document.body.innerHTML"):
            browser.click("[type=submit]")
        return browser

    def log_in(self, name: str) -> Browser:
        """Return a new browser with a user's session."""
        browser = self.try_to_log_in(name)
        wait_until(lambda: "_token" in browser.cookies(), timeout=60, what=f"{name} has a session")
        return browser

    def statuses(self, token: str) -> tuple[int, int]:
        """Return the status of Airflow's REST API and of a page for a session's cookie."""
        cookie = {"Cookie": f"_token={token}"}
        paths = (f"{self.airflow}/api/v2/connections", self.page("prometheus", "/api/v1/query?query=1"))
        airflow, page = (httpx.get(path, headers=cookie, timeout=30).status_code for path in paths)
        return airflow, page


def apply(stack: Stack, settings: str, secrets: dict[str, str]) -> None:
    stack.project.env_file.write_text(settings)
    for name, text in secrets.items():
        path = stack.state / "secrets" / name
        path.unlink(missing_ok=True)
        if text:
            path.touch(mode=0o600)
            path.write_text(f"{text}\n")
    stack.command("up")


@pytest.fixture(scope="module")
def sso(
    stack: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SingleSignOn]:
    """Provide the stack with a provider that runs, and with its former log-in afterwards."""
    if request.config.getoption("--stack") == "running":
        pytest.skip("changes the settings of the stack")
    folder: Path = tmp_path_factory.mktemp("provider")
    provider = oidc_server(folder)
    provider.callback = f"{stack.airflow_url}/auth/oauth-authorized/sso"
    provider.accounts = GROUPS
    before = stack.project.env_file.read_text()
    chosen = {**provider.settings(ROLES), "PAGES_LOG_IN": "airflow"}
    with ExitStack() as running, browsers(folder) as opened:
        running.enter_context(provider.running())
        try:
            apply(stack, before + "".join(f"{key}={value}\n" for key, value in chosen.items()), provider.secrets())
            yield SingleSignOn(stack, provider, running, opened)
        finally:
            for name in GROUPS.keys() - {"admin"}:
                stack.command("user", "remove", name, "--yes", check=False)
            apply(stack, before, dict.fromkeys(provider.secrets(), ""))


@pytest.fixture(autouse=True)
def ended_browsers(sso: SingleSignOn) -> Iterator[None]:
    yield
    sso.browsers.end_all()


def test_a_log_in_gives_the_role_of_the_group(sso: SingleSignOn):
    ann, bob = sso.log_in("ann"), sso.log_in("bob")
    assert ann.status("/api/v2/connections") == 200
    assert bob.status("/api/v2/dags") == 200
    assert bob.status("/api/v2/connections") == 403
    ann.open(sso.airflow)
    wait_until(lambda: "Dags" in ann.text, timeout=60, what="Airflow's home page")


def test_one_log_in_opens_every_page(sso: SingleSignOn):
    ann = sso.browsers.open()
    ann.open(sso.page("prometheus"))
    assert ann.url == f"{sso.airflow}/auth/login/", "without a session the page leads to the log-in"
    ann = sso.log_in("ann")
    for page, path in PAGES.items():
        ann.open(sso.page(page, path))
        shown = ann.run("return [location.href, performance.getEntriesByType('navigation')[0].responseStatus]")
        assert shown == [sso.page(page, path), 200]


def test_a_role_without_connections_opens_no_page(sso: SingleSignOn):
    token = sso.log_in("bob").cookies()["_token"]
    for page in PAGES:
        browser = {"Cookie": f"_token={token}", "Accept": "text/html"}
        answer = httpx.get(sso.page(page), headers=browser, timeout=30)
        assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (401, True), page


@pytest.mark.parametrize("name", ["admin", "eve"])
def test_a_wrong_group_or_a_reserved_name_is_refused(sso: SingleSignOn, name: str):
    browser = sso.try_to_log_in(name)
    wait_until(lambda: browser.url.startswith(f"{sso.airflow}/auth/login"), timeout=60, what="the log-in is refused")
    assert "_token" not in browser.cookies()
    assert browser.status("/api/v2/dags") == 401


def test_a_user_revoked_at_the_provider_cannot_log_in_again(sso: SingleSignOn):
    carol = sso.log_in("carol")
    token = carol.cookies()["_token"]
    sso.provider.set_accounts({name: groups for name, groups in GROUPS.items() if name != "carol"})
    try:
        again = sso.try_to_log_in("carol")
        time.sleep(1)
        again.open(sso.airflow)
        assert "_token" not in again.cookies()
        assert sso.statuses(token) == (200, 200), "the session goes on until an operator ends it"
        sso.stack.command("user", "remove", "carol", "--yes")
        wait_until(lambda: sso.statuses(token) == (403, 401), timeout=REVOKED_SECONDS, what="the session is refused")
    finally:
        sso.provider.set_accounts(GROUPS)


def test_an_expired_session_leads_to_the_log_in(sso: SingleSignOn):
    token = sso.log_in("ann").cookies()["_token"]
    key = token_keys.loaded(sso.stack.secret("jwt_users_key"))
    claims = jwt.decode(token, options={"verify_signature": False})
    headers = {"kid": jwt.get_unverified_header(token).get("kid")}
    now = int(time.time())
    valid = jwt.encode({**claims, "jti": "of-the-tests"}, key, algorithm="EdDSA", headers=headers)
    assert sso.statuses(valid) == (200, 200)
    times = {"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}
    expired = jwt.encode({**claims, "jti": "of-the-tests", **times}, key, algorithm="EdDSA", headers=headers)
    assert sso.statuses(expired) == (401, 401)
    browser = sso.browsers.open()
    browser.open(f"{sso.airflow}/auth/login/")
    browser.set_cookie("_token", expired)
    for url in (sso.page("prometheus"), sso.airflow):
        browser.open(url)
        wait_until(lambda: "/auth/login" in browser.url, timeout=60, what=f"{url} leads to the log-in")


def test_a_log_out_ends_the_session_everywhere(sso: SingleSignOn):
    ann = sso.log_in("ann")
    token = ann.cookies()["_token"]
    assert sso.statuses(token) == (200, 200)
    ann.open(f"{sso.airflow}/api/v2/auth/logout")
    wait_until(lambda: "/auth/login" in ann.url, timeout=60, what="the log-in")
    assert "_token" not in ann.cookies()
    wait_until(lambda: sso.statuses(token) == (403, 401), timeout=REVOKED_SECONDS, what="the session is refused")


def test_without_the_provider_sessions_and_local_log_ins_go_on(sso: SingleSignOn):
    ann = sso.log_in("ann")
    sso.running.close()
    try:
        assert ann.status("/api/v2/connections") == 200
        ann.open(sso.page("prometheus"))
        assert ann.status("/api/v1/query?query=up") == 200
        other = sso.browsers.open()
        other.open(f"{sso.airflow}/auth/login/")
        other.click("#btn-signin-sso")
        time.sleep(1)
        other.open(sso.airflow)
        wait_until(lambda: "/auth/login" in other.url, timeout=60, what="no log-in without the provider")
        sso.stack.log_in("admin", sso.stack.secret("airflow_admin_password")).get("/connections")
        assert sso.stack.flower.get("/api/workers").status_code == 200
        assert sso.stack.prometheus.query("up")
    finally:
        sso.running.enter_context(sso.provider.running())
