"""OpenAPI of what sites and a global tell each other of snapshots."""

from __future__ import annotations

from typing import Any

from datamodel.snapshots.schema import answer

_IDS = {"type": "string", "description": "UUIDs, separated by commas."}
_TOLD = {
    "type": "object",
    "required": ["until", "pins", "next"],
    "properties": {
        "until": {
            "type": "string",
            "format": "date-time",
            "description": "Beside these there is no snapshot of an earlier moment, and none will come.",
        },
        "pins": {"type": "array", "items": {"$ref": "#/components/schemas/Snapshot"}},
        "next": {"type": ["string", "null"], "description": "The `after` of the next page."},
    },
}
_SAID = {
    "type": "object",
    "required": ["position"],
    "properties": {
        "position": {"type": "string", "description": "All that happened there before the moments lies below it."},
        "held": _IDS,
        "dropped": _IDS,
    },
}

PATHS: dict[str, dict[str, Any]] = {
    "/pins": {
        "get": {
            "operationId": "list_pins",
            "tags": ["snapshots"],
            "summary": "All snapshots, released ones included, for a site that keeps their bytes",
            "parameters": [{"name": "after", "in": "query", "schema": {"type": "string", "format": "uuid"}}],
            "responses": {"200": answer("A page, by id.", _TOLD)},
        },
        "post": {
            "operationId": "acknowledge_pins",
            "tags": ["snapshots"],
            "summary": "A site says which snapshots it keeps, and which released ones it has dropped",
            "parameters": [],
            "requestBody": {
                "required": True,
                "content": {"application/x-www-form-urlencoded": {"schema": _SAID}},
            },
            "responses": {"200": answer("Recorded.", {"type": "object"})},
        },
    }
}
