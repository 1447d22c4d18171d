"""From Airflow's names to StatsD lines that every receiver takes.

Airflow writes a metric's tags into its name, as InfluxDB does (`ti.finish,dag_id=d,state=success`). statsd_exporter
and the collector's StatsD receiver both read DogStatsD's form (`ti.finish:1|c|#dag_id:d,state:success`); the receiver
does not read the other. What either would refuse is mended here, so that no metric is lost for its name.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT = 250
"""Characters of a name: Airflow's own limit for a whole stat."""

VALUE_LIMITS = (250, 100, 40)
"""Characters of a tag's value, the next when the line would get too long; Airflow's ids have 250 at most."""

KEY_LIMIT = 64
"""Characters of a tag's key."""

LINE_LIMIT = 1300
"""Characters of a line without its number: statsd_exporter relays none over 1400 bytes.

https://github.com/prometheus/statsd_exporter/blob/v0.30.0/pkg/relay/relay.go
"""

EMPTY = "none"
"""Stands for an empty name or value: Prometheus takes an empty label for no label, the exporter for a malformed one."""

_NOT_IN_VALUES = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_]")


def mended(text: str, limit: int, unsafe: re.Pattern[str] = _NOT_IN_VALUES) -> str:
    """The text, with what a receiver would trip over replaced by underscores.

    Where that or the limit would make different texts one (cut, or not ASCII), a short hash keeps them apart.

    Args:
        text: a name, a tag's key or value.
        limit: characters at most.
        unsafe: which characters to replace, one by one.

    Returns:
        Letters, digits and a few signs, never empty.
    """
    safe = unsafe.sub("_", text) or EMPTY
    if len(safe) <= limit and text.isascii():
        return safe
    digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{safe[: limit - len(digest) - 1]}_{digest}"


def _key(text: str, own: Mapping[str, str]) -> str:
    key = mended(text, KEY_LIMIT, _NOT_IN_KEYS)
    # A label twice on one series is an error for Prometheus; ours tell who speaks, so the other gives way.
    return f"stat_{key}" if key in own or key[0].isdigit() else key


def _split(stat: str) -> tuple[str, list[tuple[str, str]]]:
    name, *parts = stat.split(",")
    tags: list[tuple[str, str]] = []
    for part in parts:
        key, equals, value = part.partition("=")
        if equals:
            tags.append((key, value))
        elif tags:  # the rest of a value with a comma in it
            tags[-1] = (tags[-1][0], f"{tags[-1][1]},{part}")
        else:
            name = f"{name},{part}"
    return name, tags


def head_and_tail(stat: str, prefix: str, own: Mapping[str, str]) -> tuple[str, str]:
    """What stands before and after a metric's number in its line.

    Args:
        stat: a name, followed by Airflow's Influx tags if it has any.
        prefix: what goes before the name, with a dot; may be empty.
        own: tags to add; must be valid.

    Returns:
        Name and tags, as in `airflow.ti.start` and `|#dag_id:d,component:task`.
    """
    name, tags = _split(stat)
    head = mended(f"{prefix}.{name}" if prefix and name else prefix or name, NAME_LIMIT)
    last = [f"{key}:{value}" for key, value in own.items()]
    tail = ""
    for limit in VALUE_LIMITS:
        pairs = [f"{_key(key, own)}:{mended(value, limit)}" for key, value in tags]
        tail = "|#" + ",".join(pairs + last) if pairs or last else ""
        if len(head) + len(tail) <= LINE_LIMIT:
            return head, tail
    # Dozens of tags: as many as fit, and one for all the others, so that series stay apart.
    room = LINE_LIMIT - len(head) - len(",".join(["|#", *last, "more_tags:", "12345678"]))
    kept: list[str] = []
    for pair in pairs:
        room -= len(pair) + 1
        if room < 0:
            break
        kept.append(pair)
    others = blake2b(repr(tags[len(kept) :]).encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return head, "|#" + ",".join([*kept, f"more_tags:{others}", *last])
