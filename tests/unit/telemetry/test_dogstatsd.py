"""Every name that Airflow can make becomes a line that every receiver takes."""

from __future__ import annotations

import re

import pytest

from airflow_ha.telemetry.dogstatsd import KEY_LIMIT, LINE_LIMIT, NAME_LIMIT, VALUE_LIMITS, head_and_tail, mended

OWN = {"component": "task", "airflow_instance": "abc"}
LINE = re.compile(r"[A-Za-z0-9_./-]+(\|#[A-Za-z_]\w*:[A-Za-z0-9_./-]+(,[A-Za-z_]\w*:[A-Za-z0-9_./-]+)*)?")


def tags_of(stat: str) -> dict[str, str]:
    _, tail = head_and_tail(stat, "airflow", OWN)
    return dict(pair.split(":") for pair in tail.removeprefix("|#").split(","))


def test_influx_tags_become_dogstatsd_tags_and_ours_follow():
    assert head_and_tail("ti.finish,dag_id=d,task_id=t,state=success", "airflow", OWN) == (
        "airflow.ti.finish",
        "|#dag_id:d,task_id:t,state:success,component:task,airflow_instance:abc",
    )


def test_without_prefix_and_tags_the_name_stands_alone():
    assert head_and_tail("scheduler_heartbeat", "", {}) == ("scheduler_heartbeat", "")


@pytest.mark.parametrize("odd", [*" :|#@\n\r\t\0\"'\\{}[]()%;!?&<>=+", ","], ids=repr)
def test_a_sign_that_a_receiver_would_trip_over_becomes_an_underscore(odd):
    assert tags_of(f"pool.open_slots,pool_name=my{odd}pool")["pool_name"] == "my_pool"


@pytest.mark.parametrize("odd", [*" :|#@\n\r", "="], ids=repr)
def test_a_name_is_mended_like_a_value(odd):
    assert head_and_tail(f"my{odd}job", "airflow", {})[0] == "airflow.my_job"


def test_a_key_is_a_valid_label():
    tags = tags_of("x,team-name=a,1st=b,größe=c")
    assert tags["team_name"] == "a"
    assert tags["stat_1st"] == "b"
    assert all(re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) for key in tags)


@pytest.mark.parametrize("stat", ["x,dag_id=", "x,=d", "", ",", ",a=b"])
def test_what_is_empty_gets_a_word_instead(stat):
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert LINE.fullmatch(head + tail)


def test_other_alphabets_are_replaced_and_stay_distinct():
    first, second = tags_of("x,dag_id=日本")["dag_id"], tags_of("x,dag_id=中国")["dag_id"]
    assert first != second
    assert first.isascii()


@pytest.mark.parametrize("length", [249, 250])
def test_an_id_as_long_as_airflow_allows_is_left_alone(length):
    assert tags_of(f"x,dag_id={'d' * length}")["dag_id"] == "d" * length


def test_what_is_too_long_is_cut_and_stays_distinct():
    limit = VALUE_LIMITS[0]
    first, second = (tags_of(f"x,dag_id={'d' * limit}{end}")["dag_id"] for end in "ab")
    assert len(first) == len(second) == limit
    assert first != second
    assert len(mended("n" * 999, NAME_LIMIT)) == NAME_LIMIT
    assert max(map(len, tags_of(f"x,{'k' * 99}=v"))) == KEY_LIMIT


def test_six_tags_of_the_greatest_length_fit_in_a_line_that_the_exporter_relays():
    stat = "n" * 240 + "".join(f",key{i}={'v' * 240}{i}" for i in range(6))
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert len(head + tail) <= LINE_LIMIT
    assert [f"key{i}" in tail for i in range(6)] == [True] * 6


def test_a_hundred_tags_keep_the_first_ours_and_one_that_tells_the_rest_apart():
    stat = "x" + "".join(f",key{i}={'v' * 60}" for i in range(100))
    first, second = tags_of(stat), tags_of(stat + "z")
    assert {"key0", "more_tags", *OWN} <= set(first)
    assert first["more_tags"] != second["more_tags"]
    head, tail = head_and_tail(stat, "airflow", OWN)
    assert len(head + tail) <= LINE_LIMIT


def test_a_tag_with_the_name_of_ours_gives_way():
    tags = tags_of("x,component=celery,airflow_instance=other")
    assert tags["component"] == "task"
    assert tags["stat_component"] == "celery"


def test_every_metric_in_airflows_own_list_passes_unchanged():
    from airflow._shared.observability.metrics.metrics_registry import MetricsRegistry

    names = [name for name in MetricsRegistry()._metrics if "{" not in name]
    assert len(names) > 50
    assert {head_and_tail(name, "airflow", {}) for name in names} == {(f"airflow.{name}", "") for name in names}
