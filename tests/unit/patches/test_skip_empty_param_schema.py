"""A param without a schema accepts any value at once; a schema is still checked."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk.definitions.param import Param
from airflow.sdk.exceptions import ParamValidationError
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tests.unit.patches.loading import applied


@pytest.fixture
def patched():
    """The patch, applied for one test."""
    with applied("skip_empty_param_schema", Draft202012Validator):
        yield


def count_keyword_calls(param: Param) -> int:
    """Return the number of calls of jsonschema keywords while a param gets its value."""
    calls = 0

    def count(frame, event, _):
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.endswith("_keywords.py")

    sys.setprofile(count)
    try:
        param.resolve()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.usefixtures("patched")
def test_param_without_a_schema_skips_the_check():
    assert count_keyword_calls(Param({"any": [1, None]})) == 0
    assert Param(1).resolve({"other": "value"}) == {"other": "value"}


def test_upstream_checks_an_empty_schema():
    """If this fails, upstream is fixed: delete skip_empty_param_schema and this file."""
    assert count_keyword_calls(Param(1)) > 10


@pytest.mark.usefixtures("patched")
def test_param_with_a_schema_is_checked():
    assert Param(1, type="integer").resolve(2) == 2
    with pytest.raises(ParamValidationError, match="is not of type 'integer'"):
        Param(1, type="integer").resolve("two")
    with pytest.raises(SchemaError, match="'decimal' is not valid"):
        Param(1, type="decimal").resolve(2)
    with pytest.raises(SchemaError, match="is not of type"):
        Draft202012Validator.check_schema([])


@pytest.mark.usefixtures("patched")
def test_validator_instance_checks_a_schema_too():
    schema = {"type": "integer"}
    Draft202012Validator(schema).check_schema(schema)
    with pytest.raises(SchemaError, match="'decimal' is not valid"):
        Draft202012Validator(schema).check_schema({"type": "decimal"})
