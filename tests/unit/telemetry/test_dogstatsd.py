"""Every name from Airflow becomes a line that every receiver accepts."""

from __future__ import annotations

import re

import pytest

from airflow_ha.telemetry.dogstatsd import KEY_LIMIT, LINE_LIMIT, NAME_LIMIT, VALUE_LIMITS, head_and_tail, sanitize

OWN = {"component": "task", "airflow_instance": "abc"}
LINE = re.compile(r"[A-Za-z0-9_./-]+(\|#[A-Za-z_]\w*:[A-Za-z0-9_./-]+(,[A-Za-z_]\w*:[A-Za-z0-9_./-]+)*)?")


def tags_of(stat: str) -> dict[str, str]:
    _, tail = head_and_tail(stat, "airflow", OWN)
    return dict(pair.split(":") for pair in tail.removeprefix("|#").split(","))


def test_influx_tags_become_dogstatsd_tags_before_ours():
    assert head_and_tail("ti.finish,dag_id=d,task_id=t,state=success", "airflow", OWN) == (
        "airflow.ti.finish",
        "|#dag_id:d,task_id:t,state:success,component:task,airflow_instance:abc",
    )


def test_name_without_prefix_and_tags_is_unchanged():
    assert head_and_tail("scheduler_heartbeat", "", {}) == ("scheduler_heartbeat", "")


@pytest.mark.parametrize("odd", [*" :|#@\n\r\t\0\"'\\{}[]()%;!?&<>=+", ","], ids=repr)
def test_unsafe_character_of_a_value_becomes_an_underscore(odd):
    assert tags_of(f"pool.open_slots,pool_name=my{odd}pool")["pool_name"] == "my_pool"


@pytest.mark.parametrize("odd", [*" :|#@\n\r", "="], ids=repr)
def test_unsafe_character_of_a_name_becomes_an_underscore(odd):
    assert head_and_tail(f"my{odd}job", "airflow", {})[0] == "airflow.my_job"


def test_key_becomes_a_valid_label():
    tags = tags_of("x,team-name=a,1st=b,größe=c")
    assert tags["team_name"] == "a"
    assert tags["stat_1st"] == "b"
    assert all(re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) for key in tags)


@pytest.mark.parametrize("stat", ["x,dag_id=", "x,=d", "", ",", ",a=b"])
def test_empty_name_or_value_is_replaced(stat):
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert LINE.fullmatch(head + tail)


def test_other_alphabets_are_replaced_and_stay_distinct():
    first, second = tags_of("x,dag_id=日本")["dag_id"], tags_of("x,dag_id=中国")["dag_id"]
    assert first != second
    assert first.isascii()


@pytest.mark.parametrize("length", [249, 250])
def test_id_of_airflows_longest_length_is_unchanged(length):
    assert tags_of(f"x,dag_id={'d' * length}")["dag_id"] == "d" * length


def test_long_texts_are_truncated_and_stay_distinct():
    limit = VALUE_LIMITS[0]
    first, second = (tags_of(f"x,dag_id={'d' * limit}{end}")["dag_id"] for end in "ab")
    assert len(first) == len(second) == limit
    assert first != second
    assert len(sanitize("n" * 999, NAME_LIMIT)) == NAME_LIMIT
    assert max(map(len, tags_of(f"x,{'k' * 99}=v"))) == KEY_LIMIT


def test_six_longest_tags_fit_into_a_relayed_line():
    stat = "n" * 240 + "".join(f",key{i}={'v' * 240}{i}" for i in range(6))
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert len(head + tail) <= LINE_LIMIT
    assert [f"key{i}" in tail for i in range(6)] == [True] * 6


def test_a_hundred_tags_keep_the_first_ours_and_a_hash():
    stat = "x" + "".join(f",key{i}={'v' * 60}" for i in range(100))
    first, second = tags_of(stat), tags_of(stat + "z")
    assert {"key0", "more_tags", *OWN} <= set(first)
    assert first["more_tags"] != second["more_tags"]
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert len(head + tail) <= LINE_LIMIT


def test_tag_with_the_name_of_ours_is_renamed():
    tags = tags_of("x,component=celery,airflow_instance=other")
    assert tags["component"] == "task"
    assert tags["stat_component"] == "celery"


def test_every_metric_of_airflows_registry_is_unchanged():
    from airflow._shared.observability.metrics.metrics_registry import MetricsRegistry

    names = [name for name in MetricsRegistry()._metrics if "{" not in name]
    assert len(names) > 50
    assert {head_and_tail(name, "airflow", {}) for name in names} == {(f"airflow.{name}", "") for name in names}
