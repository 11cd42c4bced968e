"""schemathesis asks what the description promises, and what it forbids."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from web_parts import Site

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@pytest.fixture(scope="module")
def described(site: Site) -> object:
    whole = schemathesis.openapi.from_url(f"{site.address}/api/v1/openapi.json")
    return whole.exclude(path="/api/v1/tuning", method="POST")  # which would start a run with each example


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@hypothesis.settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck), database=None
)
def test_the_server_keeps_to_its_description(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)
