"""A task that pulls more mapped XComs than an API server reads at once gets them one by one."""

from __future__ import annotations

import httpx
import pytest
from airflow.sdk.api.client import Client, ServerResponseError

from tests.unit.patches.loading import applied

VALUES = list("abcdef")


@pytest.fixture(autouse=True)
def patched():
    with applied("split_xcom_slice"):
        yield


def client(slice_status: int) -> Client:
    """Return a client of a server that answers slices with this status."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Content-Range": f"map_indexes {len(VALUES)}"})
        if request.url.path.endswith("/slice"):
            return httpx.Response(slice_status, json=VALUES if slice_status == 200 else {"detail": "refused"})
        return httpx.Response(200, json=VALUES[int(request.url.path.rsplit("/", 1)[1])])

    return Client(base_url=None, dry_run=True, token="", transport=httpx.MockTransport(handle))


@pytest.mark.parametrize(
    "bounds", [(None, None, None), (1, 4, None), (None, -2, None), (-3, None, 2), (None, None, -1), (5, 1, -2)]
)
def test_refused_slice_is_read_one_by_one(bounds):
    answer = client(413).xcoms.get_sequence_slice("d", "r", "t", "k", *bounds)
    assert answer.root == VALUES[slice(*bounds)]


def test_answered_slice_is_one_request():
    assert client(200).xcoms.get_sequence_slice("d", "r", "t", "k", None, None, None).root == VALUES


@pytest.mark.parametrize(("status", "include_prior_dates"), [(404, False), (413, True)])
def test_other_refusals_are_errors(status, include_prior_dates):
    with pytest.raises(ServerResponseError):
        client(status).xcoms.get_sequence_slice(
            "d", "r", "t", "k", None, None, None, include_prior_dates=include_prior_dates
        )
