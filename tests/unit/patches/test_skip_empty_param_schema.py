"""A param without a schema takes any value, at once; one with a schema is checked as ever."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk.definitions.param import Param
from airflow.sdk.exceptions import ParamValidationError
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tests.unit.patches.loading import applied


@pytest.fixture
def ours():
    """The patch, for one test."""
    with applied("skip_empty_param_schema", Draft202012Validator):
        yield


def steps(param: Param) -> int:
    """How often Python calls one of jsonschema's keywords while a param gets its value."""
    called = 0

    def count(frame, event, _):
        nonlocal called
        called += event == "call" and frame.f_code.co_filename.endswith("_keywords.py")

    sys.setprofile(count)
    try:
        param.resolve()
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.usefixtures("ours")
def test_one_without_a_schema_has_none_checked():
    assert steps(Param({"any": [1, None]})) == 0
    assert Param(1).resolve({"other": "value"}) == {"other": "value"}


def test_upstream_still_checks_it():
    """When this fails, Airflow has fixed it: delete skip_empty_param_schema and this file."""
    assert steps(Param(1)) > 10


@pytest.mark.usefixtures("ours")
def test_one_with_a_schema_is_checked_as_ever():
    assert Param(1, type="integer").resolve(2) == 2
    with pytest.raises(ParamValidationError, match="is not of type 'integer'"):
        Param(1, type="integer").resolve("two")
    with pytest.raises(SchemaError, match="'whole' is not valid"):
        Param(1, type="whole").resolve(2)
    with pytest.raises(SchemaError, match="is not of type"):
        Draft202012Validator.check_schema([])


@pytest.mark.usefixtures("ours")
def test_a_validators_own_schema_is_checked_by_the_validator_too():
    schema = {"type": "integer"}
    Draft202012Validator(schema).check_schema(schema)
    with pytest.raises(SchemaError, match="'whole' is not valid"):
        Draft202012Validator(schema).check_schema({"type": "whole"})
