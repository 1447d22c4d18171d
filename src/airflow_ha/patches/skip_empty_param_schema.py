"""A param without a schema skips the schema check.

Problem: whenever a param gets its value, its schema is checked against JSON Schema's own, even if it is empty, as with
`params={"tasks": 100}`. The check walks seven vocabularies to find that `{}` allows everything. A task does it three
times for each param of its DAG.
Patch: `Draft202012Validator.check_schema` accepts `{}` at once.
Measured on 2 cores: 0.34 ms per check. With the single statement of result_backend.py, a no-op task costs a worker
0.100 CPU-seconds instead of 0.105.
Applies to: jsonschema 4.26.0, `jsonschema.validators`, as Airflow 3.3.2's `Param` calls it. Workers.
Upstream issue: none found.
Remove when: the test in `test_skip_empty_param_schema.py` that names upstream fails.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

_validator: Any = Draft202012Validator
_check_schema: Any = vars(_validator)["check_schema"].__func__


def check_schema(cls: Any, schema: Any, *args: Any, **options: Any) -> None:
    """Check a schema as upstream does, unless it is empty.

    Raises:
        SchemaError: It is not a valid schema.
    """
    if schema != {}:
        _check_schema(cls, schema, *args, **options)


def apply() -> None:
    """Accept an empty schema without a check."""
    _validator.check_schema = classmethod(check_schema)
