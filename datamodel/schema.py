"""OpenAPI of the plain views that both roles have."""

from __future__ import annotations

from typing import Any

TAGS = {"service": "What this service is and how it is."}


def _get(
    operation_id: str, summary: str, content: dict[str, Any], *, is_open: bool = True, **parts: Any
) -> dict[str, Any]:
    operation = {
        "operationId": operation_id,
        "tags": ["service"],
        "summary": summary,
        "responses": {"200": {"description": "As asked.", "content": content}},
    }
    return {"get": operation | ({"security": []} if is_open else {}) | parts}


_TEXT = {"schema": {"type": "string"}}
_DETAIL = {
    "name": "detail",
    "in": "query",
    "schema": {"type": "string", "examples": ["min"]},
    "description": "min: only the status and the header X-Inventory-State.",
}
_KEYS = {
    "name": "keys",
    "in": "query",
    "schema": {"type": "string", "enum": ["good", "all"], "default": "good"},
    "description": "all: also those that have expired, to verify what was signed long ago.",
}
_STATE = {
    "schema": {"type": "string", "enum": ["ReadWrite", "ReadOnly", "Offline"]},
    "description": "What this service does now.",
}
_AVAILABILITY = {
    "200": {
        "description": "Available, with or without writes; without `detail` also when it is not.",
        "headers": {"X-Inventory-State": _STATE},
        "content": {"text/xml": _TEXT, "text/plain": _TEXT},
    },
    "503": {"description": "Not available (`detail=min`).", "headers": {"X-Inventory-State": _STATE}},
}
_READY = {"schema": {"type": "object", "required": ["ready"], "properties": {"ready": {"const": True}}}}
_OPERATION = {"type": "string", "enum": ["read", "write", "delete", "harvest"], "default": "read"}
_WHY = [
    {"name": "uri", "in": "query", "required": True, "schema": {"type": "string"}},
    {"name": "operation", "in": "query", "schema": _OPERATION},
    {
        "name": "caller",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": "`anonymous`, or the principals of one caller: `user:NAME`, `group:NAME`, `token:NAME` …",
    },
]
_BECAUSE = {
    "type": "object",
    "required": ["caller", "operation", "uri", "permitted", "because"],
    "properties": {
        "caller": {"type": "array", "items": {"type": "string"}},
        "operation": {"type": "string"},
        "uri": {"type": "string"},
        "permitted": {"type": "boolean"},
        "because": {"type": "array", "items": {"type": "string"}},
    },
}

PATHS: dict[str, dict[str, Any]] = {
    "/livez": _get("livez", "Whether the process answers", {"text/plain": _TEXT}),
    "/readyz": _get("readyz", "Whether this process can serve", {"application/json": _READY}),
    "/pubkey": _get(
        "pubkey",
        "The public keys of signed URLs, statements and receipts, as a JWK set",
        {"application/jwk-set+json": {"schema": {"$ref": "#/components/schemas/KeySet"}}},
        parameters=[_KEYS],
    ),
    "/metrics": _get("metrics", "Metrics for Prometheus", {"text/plain": _TEXT}, is_open=False),
    "/permissions/explain": _get(
        "explain_permission",
        "Why a caller may or may not do something with a URI; needs the grant audit or operate",
        {"application/json": {"schema": _BECAUSE}},
        is_open=False,
        parameters=_WHY,
    ),
    "/availability": _get("availability", "VOSI availability", {}, parameters=[_DETAIL], responses=_AVAILABILITY),
    "/capabilities": _get("capabilities", "VOSI capabilities: where the services are", {"text/xml": _TEXT}),
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "KeySet": {
        "type": "object",
        "required": ["keys"],
        "properties": {
            "keys": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["kty", "crv", "kid", "x", "use"],
                    "properties": {
                        "kty": {"const": "OKP"},
                        "crv": {"const": "Ed25519"},
                        "kid": {"type": "string"},
                        "x": {"type": "string", "description": "32 bytes in base64url."},
                        "use": {"const": "sig"},
                        "alg": {"const": "EdDSA"},
                    },
                },
            }
        },
    },
}
