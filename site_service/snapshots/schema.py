"""OpenAPI of restoring."""

from __future__ import annotations

from typing import Any

from datamodel.snapshots.schema import NAME, answer

_ITEM = {
    "type": "object",
    "required": ["uri", "contentLength", "outcome"],
    "properties": {
        "uri": {"type": "string"},
        "contentLength": {"type": "integer", "format": "int64"},
        "outcome": {"type": "string", "enum": ["undeleted", "replaced", "attached", "unchanged", "refused"]},
        "reason": {"type": "string"},
    },
}
_BODY = {
    "type": "object",
    "properties": {
        "preview": {"type": "boolean", "default": True, "description": "Change nothing, tell what would become."},
        "after": {"type": "string", "description": "Where the page before ended; see `next`."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000, "description": "Uris looked at."},
    },
}

PATHS: dict[str, dict[str, Any]] = {
    "/snapshots/{name}/restore": {
        "post": {
            "operationId": "restore_snapshot",
            "tags": ["snapshots"],
            "summary": "Bring back, under new ids, what is gone or was replaced since; page by page, repeatable",
            "parameters": [NAME],
            "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
            "responses": {
                "200": answer(
                    "What was not as the snapshot names it; the rest of the page is passed over.",
                    {
                        "type": "object",
                        "required": ["items", "next"],
                        "properties": {
                            "items": {"type": "array", "items": _ITEM},
                            "next": {"type": ["string", "null"], "description": "The `after` of the next page."},
                        },
                    },
                )
            },
        }
    }
}
