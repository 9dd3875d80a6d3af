"""The OpenAPI document: what REST framework's views say of themselves, completed by what plain views' modules say.

A feature describes plain views in a module `schema.py` (named in INVENTORY_SCHEMA_MODULES) with any of `PATHS` (path items by
path without base path), `SCHEMAS` and `TAGS` (name → description).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension

from datamodel import errors, problems

_METHODS = frozenset({"get", "head", "put", "post", "patch", "delete", "options"})
_PROBLEM = {"$ref": "#/components/responses/Problem"}
_TOO_MANY = {"$ref": "#/components/responses/TooManyRequests"}
_ABOUT = """\
Callers send an API token, as `Authorization: Bearer …` or as the password of HTTP Basic, or use a signed URL, which carries
its permission in the path and needs no header. A failure is answered with `application/problem+json` (RFC 9457), whose `code`
is stable; clients of OpenCADC get its text alone.
"""


_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"basic": []}, {"certificate": []}]


class InventoryAuthenticationScheme(OpenApiAuthenticationExtension):
    """Tells the generator what `InventoryAuthentication` accepts; found by being imported."""

    target_class = "datamodel.auth_drf.InventoryAuthentication"
    name = ["bearer", "basic", "certificate"]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        del auto_schema
        return [
            {"type": "http", "scheme": "bearer", "description": "An API token, or the JWT of a trusted issuer."},
            {"type": "http", "scheme": "basic", "description": "Any user name, with an API token as the password."},
            {"type": "mutualTLS", "description": "A client certificate, where the service is set up for it."},
        ]

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        del auto_schema
        return _SECURITY


def complete_schema(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:  # noqa: FBT001  # a hook's signature
    """Add the plain views, the problem answer of every operation, security, tags and the base path.

    Raises `ValueError` when two descriptions of one operation meet.
    """
    del request, public
    tags: dict[str, str] = {}
    components = result.setdefault("components", {})
    for name in settings.INVENTORY_SCHEMA_MODULES:
        module = import_module(name)
        _add_paths(result["paths"], getattr(module, "PATHS", {}))
        components.setdefault("schemas", {}).update(getattr(module, "SCHEMAS", {}))
        tags |= getattr(module, "TAGS", {})
    _add_security(components, generator)
    components["schemas"]["Problem"] = _problem_schema()
    ours = {"Problem": _problem_response(), "TooManyRequests": _too_many_response()}
    components["responses"] = ours | components.get("responses", {})
    for item in result["paths"].values():
        for operation in (operation for method, operation in item.items() if method in _METHODS):
            operation["responses"].setdefault("default", _PROBLEM)
            # Where nobody is asked who he is, nobody is counted.
            if operation.get("security") != []:
                operation["responses"].setdefault("429", _TOO_MANY)
    result["info"] |= {"title": f"Storage inventory: {settings.INVENTORY_ROLE}", "description": _ABOUT}
    result["servers"] = [{"url": f"/{settings.INVENTORY_BASE_PATH}".rstrip("/") or "/"}]
    result["security"] = _SECURITY
    result["tags"] = [{"name": name, "description": text} for name, text in sorted(tags.items())]
    result["paths"] = dict(sorted(result["paths"].items()))
    return result


def _add_paths(paths: dict[str, Any], added: dict[str, Any]) -> None:
    for path, item in added.items():
        known = paths.setdefault(path, {})
        if twice := sorted(known.keys() & item.keys()):
            raise ValueError(f"{path} is described twice: {twice}")
        known.update(item)


def _add_security(components: dict[str, Any], generator: Any) -> None:
    scheme = InventoryAuthenticationScheme(generator)  # type: ignore[no-untyped-call]
    definitions = zip(scheme.name, scheme.get_security_definition(None), strict=True)
    components["securitySchemes"] = dict(definitions)


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457; further members hold facts of the failure.",
        "required": ["type", "title", "status", "detail", "code", "retryable"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong, and what would be right."},
            "code": {
                "type": "string",
                "enum": sorted({errors.InventoryError.code, *(kind.code for kind in problems.STATUS)}),
                "description": "Stable; the README of the data model lists them.",
            },
            "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
        },
        "additionalProperties": True,
    }


def _too_many_response() -> dict[str, Any]:
    return _problem_response() | {
        "description": "A rate limit is used up. Signed URLs are never limited.",
        "headers": {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
            "RateLimit": {
                "description": "What is left, by budget: `r` requests, all of them again in `t` seconds.",
                "schema": {"type": "string"},
                "example": '"caller";r=0;t=12',
            },
            "RateLimit-Policy": {
                "description": "The budgets: `q` requests in `w` seconds.",
                "schema": {"type": "string"},
                "example": '"caller";q=600;w=60',
            },
        },
    }


def _problem_response() -> dict[str, Any]:
    return {
        "description": "The request failed.",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
