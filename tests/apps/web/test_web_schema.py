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


HOW = hypothesis.settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck), database=None
)


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_the_server_keeps_to_its_description(site: Site, mode: schemathesis.GenerationMode) -> None:
    described = schemathesis.openapi.from_url(f"{site.address}/api/v1/openapi.json")
    asked = 0
    # but for the one that would start a run with each example
    for operation in described.exclude(path="/api/v1/tuning", method="POST").get_all_operations():

        @hypothesis.given(case=operation.ok().as_strategy(generation_mode=mode))
        @HOW
        def keeps(case: schemathesis.Case) -> None:
            nonlocal asked
            case.call_and_validate(checks=CHECKS)
            asked += 1

        try:
            keeps()
        except hypothesis.errors.Unsatisfiable:
            assert mode is schemathesis.GenerationMode.NEGATIVE  # nothing of it can be wrong
    assert asked > 100
