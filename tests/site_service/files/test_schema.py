"""The OpenAPI document knows the byte plane, and says of it what is true."""

from __future__ import annotations

from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from site_service.files.schema import PATHS


def test_schema_is_valid_and_has_every_path() -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    validate_schema(schema)
    assert set(PATHS) <= set(schema["paths"])


def test_described_methods_are_those_allowed(client: Client) -> None:
    methods = {name.upper() for name in PATHS["/files/{uri}"]}
    assert set(client.options("/files/cadc:TEST/x")["Allow"].split(", ")) == methods | {"OPTIONS"}
