"""Users that `./ops/stack user` adds have exactly their role, and lose everything when they are removed."""

from __future__ import annotations

import json
import secrets

import httpx
import pytest

from tests.stack import Stack, wait_until

NAME = "tests-ann"
REVOCATION_SECONDS = 60
"""FAB caches a user for 30 s."""


@pytest.fixture
def ann(stack: Stack):
    """A new user with the role Viewer; returns the password."""
    password = secrets.token_urlsafe(24)
    stack.command("user", "add", NAME, "--role", "Viewer", given=password)
    yield password
    stack.command("user", "remove", NAME, "--yes", check=False)


def token(stack: Stack, password: str) -> str | None:
    answer = httpx.post(f"{stack.airflow_url}/auth/token", json={"username": NAME, "password": password}, timeout=30)
    return answer.json()["access_token"] if answer.status_code == 201 else None


def status(stack: Stack, token: str, method: str, path: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{stack.airflow_url}{path}", headers=headers, json={}, timeout=30).status_code


def test_a_removed_user_is_refused_also_with_an_old_token(stack: Stack, ann: str):
    listed = json.loads(stack.command("user", "list", "--json").stdout)["users"]
    assert {each["name"]: each["roles"] for each in listed}[NAME] == ["Viewer"]
    held = token(stack, ann)
    assert held
    assert status(stack, held, "GET", "/api/v2/dags") == 200
    assert status(stack, held, "POST", "/api/v2/pools") == 403
    stack.command("user", "remove", NAME, "--yes")
    assert token(stack, ann) is None
    wait_until(
        lambda: status(stack, held, "GET", "/api/v2/dags") in (401, 403),
        timeout=REVOCATION_SECONDS,
        what="the token of the removed user is refused",
    )


# It waits for the same cache as the test above; tests/unit/ops/test_user_command.py sets roles in every run.
@pytest.mark.nightly
def test_a_new_role_applies_to_a_held_token(stack: Stack, ann: str):
    held = token(stack, ann)
    assert held
    assert status(stack, held, "POST", "/api/v2/pools") == 403
    stack.command("user", "role", NAME, "--role", "Op")
    wait_until(
        lambda: status(stack, held, "POST", "/api/v2/pools") == 422,
        timeout=REVOCATION_SECONDS,
        what="the new role applies",
    )
