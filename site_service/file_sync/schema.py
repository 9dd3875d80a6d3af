"""OpenAPI of the plain views of file sync."""

from __future__ import annotations

from typing import Any

TAGS = {"sync": "What this site wants, lacks and pulls."}

_INTEGER = {"type": "integer", "format": "int64"}
_COUNTS = {"type": "object", "additionalProperties": _INTEGER}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_NUMBERS = ("missing", "missingBytes", "repairs", "inFlight", "expired", "due", "unseen")


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": description, "content": {"application/json": {"schema": schema}}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


PATHS: dict[str, dict[str, Any]] = {
    "/explain": {
        "get": {
            "operationId": "explain",
            "tags": ["sync"],
            "summary": "All that this site knows of one URI: policy, copy, last attempt, next try, news",
            "parameters": [{"name": "uri", "in": "query", "required": True, "schema": {"type": "string"}}],
            "responses": _answer("Also for an unknown URI.", _ref("Explanation")),
        }
    },
    "/sync": {
        "get": {
            "operationId": "sync_summary",
            "tags": ["sync"],
            "summary": "The queue of file sync in numbers",
            "responses": _answer("The whole queue.", _ref("SyncSummary")),
        },
        "post": {
            "operationId": "sync_now",
            "tags": ["sync"],
            "summary": "Try now whatever waits for its next try",
            "responses": _answer(
                "How many were waiting.",
                {"type": "object", "properties": {"hastened": _INTEGER}, "required": ["hastened"]},
            ),
        },
    },
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "SyncSummary": {
        "type": "object",
        "required": [*_NUMBERS, "failing", "outcomes", "isPaused"],
        "properties": {
            **dict.fromkeys(_NUMBERS, _INTEGER),
            "oldestSeconds": {"type": "number"},
            "failing": {**_COUNTS, "description": "Rows of the queue by the reason of their last failure."},
            "outcomes": {
                "type": "object",
                "description": "Files and bytes by reason, since the beginning.",
                "additionalProperties": {"type": "object", "properties": {"files": _INTEGER, "bytes": _INTEGER}},
            },
            "freeBytes": {"type": ["integer", "null"], "format": "int64"},
            "isPaused": {"type": "boolean", "description": "Free space is below INVENTORY_SYNC_FREE_BYTES."},
        },
    },
    "Explanation": {
        "type": "object",
        "required": [
            "uri",
            "standing",
            "policy",
            "artifact",
            "location",
            "attempt",
            "tombstones",
            "retired",
            "globals",
        ],
        "properties": {
            "uri": {"type": "string"},
            "standing": {"type": "string"},
            "policy": {
                "type": "object",
                "properties": {
                    "wanted": {"type": "boolean"},
                    "priority": _INTEGER,
                    "namespace": {"type": ["string", "null"], "description": "Of the rule that decided."},
                },
            },
            "artifact": {"type": ["object", "null"]},
            "location": {"type": ["object", "null"]},
            "attempt": {
                "type": ["object", "null"],
                "properties": {
                    "attempts": _INTEGER,
                    "isRepair": {"type": "boolean"},
                    "queuedAt": _TIME,
                    "lastTriedAt": _TIME,
                    "lastReason": {"type": ["string", "null"]},
                    "lastError": {"type": ["string", "null"]},
                    "nextTryAt": _TIME,
                    "leaseUntil": _TIME,
                },
            },
            "tombstones": {"type": "array", "items": {"type": "object"}},
            "retired": {"type": "array", "items": {"type": "object"}},
            "conflicts": {"type": "array", "items": {"type": "object"}},
            "globals": {"type": "array", "items": {"type": "object"}},
        },
    },
}
