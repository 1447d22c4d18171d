"""A call in the newest version of an API has its dependencies solved once; one in an older version is translated."""

# No annotations from __future__: Cadwyn finds an endpoint's classes only where its annotations are not strings.

from types import SimpleNamespace
from typing import Annotated

import pytest
from cadwyn import (
    Cadwyn,
    HeadVersion,
    RequestInfo,
    Version,
    VersionBundle,
    VersionChange,
    VersionedAPIRouter,
    convert_request_to_next_version_for,
    schema,
)
from fastapi import Depends, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel

from tests.unit.patches.loading import applied

NEWEST, OLDER = "2026-01-01", "2025-01-01"


class Body(BaseModel):
    """What a call says."""

    word: str


class Filter(BaseModel):
    """What it asks for."""

    limit: int = 1


class Spelled(VersionChange):
    """A word was once a number."""

    description = "a word was once a number"
    instructions_to_migrate_to_previous_version = (schema(Body).field("word").had(type=int),)

    @convert_request_to_next_version_for(Body)
    def spell(request: RequestInfo) -> None:  # noqa: N805 (Cadwyn's way)
        request.body["word"] = str(request.body["word"])


@pytest.fixture
def ours():
    """The patch, for one test."""
    with applied("reuse_cadwyn_dependencies"):
        yield


@pytest.fixture(scope="module")
def app():
    """One of two versions, which keeps what its dependencies and its endpoints were given."""
    seen = SimpleNamespace(solved=[], used=[], guarded=0)

    def dependency(limit: int = 1):
        seen.solved.append(f"{len(seen.solved)} of {limit}")
        yield seen.solved[-1]

    def guard():
        seen.guarded += 1

    router = VersionedAPIRouter(dependencies=[Depends(guard)])

    @router.post("/{number}")
    def post(
        number: int, body: Body, which: Annotated[Filter, Query()], solved: str = Depends(dependency)
    ) -> dict[str, object]:
        seen.used.append(solved)
        return {"number": number, "word": body.word, "classes": [type(body) is Body, type(which) is Filter]}

    @router.get("/")
    def get(solved: str = Depends(dependency)) -> str:
        return solved

    app = Cadwyn(versions=VersionBundle(HeadVersion(), Version(NEWEST, Spelled), Version(OLDER)))
    app.generate_and_include_versioned_routers(router)
    with TestClient(app) as client:
        yield SimpleNamespace(client=client, seen=seen)


@pytest.fixture
def server(app):
    """That app, which has seen nothing yet."""
    app.seen.solved.clear()
    app.seen.used.clear()
    app.seen.guarded = 0
    return app


def posted(server: SimpleNamespace, version: str, **body: object):
    return server.client.post("/7", params={"limit": 3}, json=body, headers={"x-api-version": version})


@pytest.mark.usefixtures("ours")
def test_in_the_newest_version_its_endpoint_gets_what_was_solved_once(server):
    said = posted(server, NEWEST, word="hello")
    assert said.json() == {"number": 7, "word": "hello", "classes": [True, True]}
    assert server.seen.solved == server.seen.used == ["0 of 3"]
    assert server.seen.guarded == 1
    assert server.client.get("/", headers={"x-api-version": NEWEST}).json() == "1 of 1"


def test_upstream_still_solves_them_twice(server):
    """When this fails, Cadwyn has fixed it: delete reuse_cadwyn_dependencies and this file."""
    assert posted(server, NEWEST, word="hello").json()["classes"] == [True, True]
    assert server.seen.solved == ["0 of 3", "1 of 3"]
    assert server.seen.guarded == 2


@pytest.mark.usefixtures("ours")
def test_an_older_version_is_translated_as_upstream(server):
    said = posted(server, OLDER, word=5)
    assert said.json() == {"number": 7, "word": "5", "classes": [True, True]}
    assert server.seen.used == ["1 of 3"]
    assert server.seen.guarded == 2


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("version", "body"), [(NEWEST, {"word": 5}), (OLDER, {"word": "hello"})])
def test_a_body_of_another_version_is_refused(server, version, body):
    assert posted(server, version, **body).status_code == 422
    assert not server.seen.used


def test_the_execution_apis_newest_version_is_what_workers_ask_for():
    """When this fails, its calls are translated, and reuse_cadwyn_dependencies has no effect."""
    from airflow.api_fastapi.execution_api.versions import bundle
    from airflow.sdk.api.datamodels._generated import API_VERSION

    assert bundle.version_values[0] == API_VERSION
    assert not bundle.head_version.changes
