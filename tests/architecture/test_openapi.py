"""The committed OpenAPI documents are complete; `make check` compares them with the code."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml
from django.urls import URLPattern, URLResolver, get_resolver

from tests.architecture.source import PROJECT

PACKAGES = {"site": "site_service", "global": "global_inventory"}
METHODS = {"get", "head", "put", "post", "patch", "delete", "options"}


@cache
def committed(role: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROJECT / PACKAGES[role] / "openapi.yaml").read_text(encoding="utf-8"))
    return document


def operations(role: str) -> list[tuple[str, str, dict[str, Any]]]:
    paths = committed(role)["paths"].items()
    return [(path, method, item[method]) for path, item in paths for method in METHODS & item.keys()]


@pytest.mark.parametrize("role", PACKAGES)
def test_every_operation_has_a_name_of_its_own_a_tag_a_summary_and_the_problem_answer(role: str) -> None:
    found = operations(role)
    assert len(found) > 15
    names = [operation["operationId"] for _, _, operation in found]
    assert len(names) == len(set(names))
    described = {tag["name"] for tag in committed(role)["tags"]}
    for path, method, operation in found:
        assert set(operation["tags"]) <= described, (path, method)
        assert operation.get("summary") or operation.get("description"), (path, method)
        assert "default" in operation["responses"], (path, method)


@pytest.mark.parametrize("role", PACKAGES)
def test_every_parameter_of_a_path_is_described(role: str) -> None:
    document = committed(role)
    for path, method, operation in operations(role):
        listed = [*operation.get("parameters", []), *document["paths"][path].get("parameters", [])]
        resolved = [
            document["components"]["parameters"][p["$ref"].rpartition("/")[2]] if "$ref" in p else p for p in listed
        ]
        in_path = {parameter["name"] for parameter in resolved if parameter["in"] == "path"}
        assert in_path == {part.strip("{}") for part in path.split("/") if part.startswith("{")}, (path, method)


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        name = f"{prefix}{pattern.pattern}"
        found += routes(pattern.url_patterns, name) if isinstance(pattern, URLResolver) else [name]
    return found


@pytest.mark.parametrize("role", PACKAGES)
def test_every_route_is_described(role: str) -> None:
    described = {path.strip("/").partition("/")[0].partition("{")[0] for path in committed(role)["paths"]}
    served = {
        route.lstrip("^").partition("/")[0].partition("<")[0]
        for route in routes(get_resolver(f"{PACKAGES[role]}.urls").url_patterns)
    }
    first_words = {word for word in served if word and not word.startswith(("admin", "schema", "docs", "("))}
    assert len(first_words) > 5
    assert first_words - described == set()
