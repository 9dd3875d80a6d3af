"""OpenAPI of the audit's export."""

from __future__ import annotations

from typing import Any

TAGS = {"audit": "Who did what: entries, chained so that anybody can check them."}

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer", "format": "int64"}
_TIME = {"type": "string", "format": "date-time"}
_HEX = {"type": "string", "pattern": "^[0-9a-f]*$"}
_PARAMETERS = [
    {
        "name": "after",
        "in": "query",
        "schema": _TEXT,
        "description": "The number of the seal after which to go on: `next` of the page before.",
    },
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000},
        "description": "Entries of a page; the seal that goes beyond is told whole (1000 more at most).",
    },
]
_LINE = {
    "oneOf": [
        {"$ref": "#/components/schemas/AuditEntry"},
        {"$ref": "#/components/schemas/AuditSeal"},
        {"$ref": "#/components/schemas/AuditEnd"},
    ]
}


def _object(description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    required = [name for name in properties if name != "signed"]
    return {"type": "object", "description": description, "required": required, "properties": properties}


SCHEMAS: dict[str, Any] = {
    "AuditEntry": _object(
        "One entry. The text of its line, as it is, is what is hashed: SHA-256 of the 32 bytes before and the line without its end.",
        id=_WHOLE,
        txid=_WHOLE,
        at=_TIME,
        who=_TEXT,
        method=_TEXT,
        address=_TEXT,
        action=_TEXT,
        subject=_TEXT,
        outcome={"type": "string", "enum": ["done", "refused", "failed"]},
        reason=_TEXT,
        request=_TEXT,
        count=_WHOLE,
        details={"type": "object"},
    ),
    "AuditSeal": _object(
        "Follows its entries: `digest` is the hash after the last of them, `previous` that of the seal before (64 zeros at first). "
        "`links`: per entry its id (8 bytes) and the first 8 bytes of the hash after it. `signed`: a JWS of the inventory.",
        seal=_WHOLE,
        at=_TIME,
        to={"type": "array", "items": _WHOLE, "description": "txid and id of the last entry."},
        entries=_WHOLE,
        previous=_HEX,
        digest=_HEX,
        links=_HEX,
        signed=_TEXT,
    ),
    "AuditEnd": _object(
        "The last line of a page that is whole.", end={"const": True}, next=_TEXT, more={"type": "boolean"}
    ),
}
PATHS: dict[str, Any] = {
    "/audit": {
        "get": {
            "operationId": "audit",
            "tags": ["audit"],
            "summary": "The sealed entries in the order of the chain, for callers with the grant audit.",
            "parameters": _PARAMETERS,
            "responses": {
                "200": {
                    "description": "A page, one JSON object per line.",
                    "content": {"application/x-ndjson": {"schema": _LINE}},
                },
                "410": {"$ref": "#/components/responses/Problem"},
            },
        }
    }
}
