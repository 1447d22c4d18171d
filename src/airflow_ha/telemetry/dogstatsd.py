"""Convert Airflow's stat names to StatsD lines that every receiver accepts.

Airflow writes a metric's tags into its name, as InfluxDB does (`ti.finish,dag_id=d,state=success`). statsd_exporter
and the collector's StatsD receiver both read DogStatsD's form (`ti.finish:1|c|#dag_id:d,state:success`); the receiver
does not read InfluxDB's. Characters that either refuses are replaced, so no metric is lost because of its name.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_LIMIT = 250
"""The most characters of a name: Airflow's own limit for a stat."""

VALUE_LIMITS = (250, 100, 40)
"""The most characters of a tag's value, the next if the line is too long; Airflow's ids have up to 250."""

KEY_LIMIT = 64
"""The most characters of a tag's key."""

LINE_LIMIT = 1300
"""The most characters of a line without its number: statsd_exporter relays no line over 1400 bytes.

https://github.com/prometheus/statsd_exporter/blob/v0.30.0/pkg/relay/relay.go
"""

EMPTY = "none"
"""Replaces an empty name or value: Prometheus drops an empty label, and the exporter counts it as malformed."""

_NOT_IN_VALUES = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_]")


def sanitize(text: str, limit: int, unsafe: re.Pattern[str] = _NOT_IN_VALUES) -> str:
    """Replace unsafe characters by underscores.

    A text that is truncated or not ASCII gets a short hash, so that different texts stay distinct.

    Args:
        text: a name, or a tag's key or value.
        limit: the most characters.
        unsafe: matches each character to replace.

    Returns:
        Letters, digits and a few signs; never empty.
    """
    safe = unsafe.sub("_", text) or EMPTY
    if len(safe) <= limit and text.isascii():
        return safe
    digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{safe[: limit - len(digest) - 1]}_{digest}"


def _key(text: str, own: Mapping[str, str]) -> str:
    key = sanitize(text, KEY_LIMIT, _NOT_IN_KEYS)
    # Prometheus refuses a duplicate label. Ours identify the sender, so the other is renamed.
    return f"stat_{key}" if key in own or key[0].isdigit() else key


def _split(stat: str) -> tuple[str, list[tuple[str, str]]]:
    name, *parts = stat.split(",")
    tags: list[tuple[str, str]] = []
    for part in parts:
        key, equals, value = part.partition("=")
        if equals:
            tags.append((key, value))
        elif tags:  # the rest of a value that contains a comma
            tags[-1] = (tags[-1][0], f"{tags[-1][1]},{part}")
        else:
            name = f"{name},{part}"
    return name, tags


def head_and_tail(stat: str, prefix: str, own: Mapping[str, str]) -> tuple[str, str]:
    """Return the parts of a metric's line before and after its number.

    Args:
        stat: a name, followed by Airflow's Influx tags if it has any.
        prefix: goes before the name, joined with a dot; may be empty.
        own: valid tags to add.

    Returns:
        Name and tags, for example `airflow.ti.start` and `|#dag_id:d,component:task`.
    """
    name, tags = _split(stat)
    head = sanitize(f"{prefix}.{name}" if prefix and name else prefix or name, NAME_LIMIT)
    last = [f"{key}:{value}" for key, value in own.items()]
    tail = ""
    for limit in VALUE_LIMITS:
        pairs = [f"{_key(key, own)}:{sanitize(value, limit)}" for key, value in tags]
        tail = "|#" + ",".join(pairs + last) if pairs or last else ""
        if len(head) + len(tail) <= LINE_LIMIT:
            return head, tail
    # With dozens of tags: as many as fit, and a hash of the others, so that series stay distinct.
    room = LINE_LIMIT - len(head) - len(",".join(["|#", *last, "more_tags:", "12345678"]))
    kept: list[str] = []
    for pair in pairs:
        room -= len(pair) + 1
        if room < 0:
            break
        kept.append(pair)
    others = blake2b(repr(tags[len(kept) :]).encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return head, "|#" + ",".join([*kept, f"more_tags:{others}", *last])
