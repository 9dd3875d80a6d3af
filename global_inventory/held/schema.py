"""OpenAPI of the statement about copies."""

from __future__ import annotations

from typing import Any

TAGS = {"held": "How many verified copies the sites hold, as a signed statement."}

_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_OPTIONAL_TIME = {"type": ["string", "null"], "format": "date-time"}
_UUID = {"type": "string", "format": "uuid"}
_COPIES = {"type": "integer", "minimum": 1, "maximum": 100}


def _object(properties: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": required or list(properties), "properties": properties}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


PATHS: dict[str, dict[str, Any]] = {
    "/held": {
        "post": {
            "operationId": "held",
            "tags": ["held"],
            "summary": "Which of up to 10,000 files are held in at least so many copies verified since a time",
            "parameters": [
                {
                    "name": "wait",
                    "in": "query",
                    "schema": {"type": "number", "minimum": 0, "default": 0},
                    "description": "Wait up to so many seconds (at most INVENTORY_HELD_WAIT_SECONDS) until all are held.",
                }
            ],
            "requestBody": {"required": True, "content": _content("HeldRequest")},
            "responses": {
                "200": {"description": "What the sites confirmed just now.", "content": _content("HeldStatement")}
            },
        }
    },
}

_SITE = {"site": _TEXT, "siteId": _UUID, "verifiedAt": _TIME}
_REASONS = ["unknown", "other_content", "other_algorithm", "too_few_copies", None]

SCHEMAS: dict[str, dict[str, Any]] = {
    "HeldRequest": _object(
        {
            "files": {
                "type": "array",
                "minItems": 1,
                "maxItems": 10_000,
                "items": _object(
                    {"uri": _TEXT, "digest": {**_TEXT, "description": "`md5:HEX` or `sha-256:HEX` of your own bytes."}}
                ),
            },
            "copies": {**_COPIES, "default": 1},
            "since": {**_OPTIONAL_TIME, "description": "Absent: verified at any time, at least when written."},
        },
        required=["files"],
    ),
    "HeldStatement": _object(
        {
            "iss": {**_TEXT, "description": "The URL of this inventory."},
            "iat": {"type": "integer", "description": "When it was signed (Unix seconds)."},
            "asOf": {**_TIME, "description": "Before the sites were asked."},
            "copies": _COPIES,
            "since": _OPTIONAL_TIME,
            "held": {"type": "boolean", "description": "Every file is held as asked."},
            "unanswered": {
                "type": "array",
                "items": _TEXT,
                "description": "Sites that should hold copies, but did not answer now.",
            },
            "files": {
                "type": "array",
                "description": "In the order asked.",
                "items": _object(
                    {
                        "uri": _TEXT,
                        "digest": _TEXT,
                        "id": {"type": ["string", "null"], "format": "uuid"},
                        "held": {"type": "boolean"},
                        "reason": {"type": ["string", "null"], "enum": _REASONS},
                        "sites": {"type": "array", "items": _object(_SITE)},
                    }
                ),
            },
            "statement": {
                **_TEXT,
                "description": "All of the above as JWS in compact form (EdDSA), verified by `/pubkey`.",
            },
        }
    ),
}
