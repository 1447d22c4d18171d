"""A param without a schema has no schema checked.

Problem: whenever a param gets its value, Airflow 3.3.2 first checks its schema against that of JSON Schema itself, also
where there is none, as with `params={"tasks": 100}`: a walk through seven vocabularies to find that `{}` permits
everything. A task does it three times for each param of its DAG.
Patch: that `{}` is a schema is known; 0.34 ms a time on 2 cores.
Applies to: workers.
Upstream issue: none found.
Remove when: the test in `test_skip_empty_param_schema.py` that names upstream fails.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

_validator: Any = Draft202012Validator
_check_schema: Any = _validator.check_schema.__func__


def check_schema(cls: Any, schema: Any, *args: Any, **options: Any) -> None:
    """Check a schema as upstream's class method does, which is called on a validator too.

    Raises:
        SchemaError: It is none.
    """
    if schema != {}:
        _check_schema(cls, schema, *args, **options)


def apply() -> None:
    """Accept an empty schema unseen."""
    _validator.check_schema = classmethod(check_schema)
