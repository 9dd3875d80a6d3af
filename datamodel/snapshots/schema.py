"""OpenAPI of snapshots, for both roles."""

from __future__ import annotations

from typing import Any

TAGS = {"snapshots": "The inventory as of a moment, and moments of a namespace that are kept, bytes included."}

_JSON = "application/json"
_SNAPSHOT = {"$ref": "#/components/schemas/Snapshot"}
_ENTRY = {"$ref": "#/components/schemas/SnapshotEntry"}
_CHANGE = {"$ref": "#/components/schemas/SnapshotChange"}
_DIGEST = {"$ref": "#/components/schemas/SnapshotDigest"}
_TIME = {"type": "string", "format": "date-time"}
_COUNT = {"type": "integer", "format": "int64"}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
NEXT = {"type": ["string", "null"], "description": "The query of the next page; null on the last one."}
AS_OF = {
    "name": "as_of",
    "in": "query",
    "schema": _TIME,
    "description": "What lived at this moment (RFC 3339), as far as it is known here now; 410 before history begins.",
}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


_PAGE = [
    _query("after", {"type": "string"}, "Where the page before ended; see `next`."),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}, "Of a page."),
]


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}


def answer(description: str, schema: dict[str, Any] | None = None, **others: dict[str, Any]) -> dict[str, Any]:
    """One answer, by default JSON; `others` by the name of a format."""
    types = {"ndjson": "application/x-ndjson", "csv": "text/csv"}
    content = {types[name]: {"schema": each} for name, each in others.items()}
    if schema is not None:
        content[_JSON] = {"schema": schema}
    return {"description": description, "content": content} if content else {"description": description}


def _operation(
    name: str,
    summary: str,
    code: str,
    described: dict[str, Any],
    parameters: list[Any],
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "tags": ["snapshots"],
        "summary": summary,
        "parameters": parameters,
        "responses": {code: described},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return operation


_NEW = {
    "type": "object",
    "required": ["name", "namespace"],
    "properties": {"name": {"type": "string", "maxLength": 100}, "namespace": {"type": "string"}},
}


def _page_of(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["items", "next"],
        "properties": {"items": {"type": "array", "items": item}, "next": NEXT},
    }


PATHS: dict[str, dict[str, Any]] = {
    "/snapshots": {
        "get": _operation(
            "list_snapshots",
            "Snapshots, the latest first; at a site also those of its globals",
            "200",
            answer("A page.", _page_of(_SNAPSHOT)),
            [_query("namespace", {"type": "string"}, "Only those of this namespace."), *_PAGE],
        ),
        "post": _operation(
            "create_snapshot",
            "Fix this moment of a namespace: no byte that lives now is removed until the snapshot is deleted",
            "201",
            answer("`kept` if nobody else has to speak, else `pinning`.", _SNAPSHOT),
            [],
            _NEW,
        ),
    },
    "/snapshots/{name}": {
        "get": _operation("get_snapshot", "One snapshot", "200", answer("Known.", _SNAPSHOT), [NAME]),
        "delete": _operation(
            "delete_snapshot", "Delete a snapshot: what only it kept may go", "204", answer("It is deleted."), [NAME]
        ),
    },
    "/snapshots/{name}/manifest": {
        "get": _operation(
            "snapshot_manifest",
            "Everything that a snapshot names, by uri, as one stream",
            "200",
            answer("One artifact per line.", ndjson=_ENTRY, csv={"type": "string"}),
            [NAME, _query("format", {"type": "string", "enum": ["ndjson", "csv"]}, "CSV has a header.")],
        )
    },
    "/snapshots/{name}/diff": {
        "get": _operation(
            "diff_snapshots",
            "What became of its uris until another snapshot of the namespace, or until now",
            "200",
            answer("Only uris that differ.", _page_of(_CHANGE), ndjson=_CHANGE),
            [
                NAME,
                _query("to", {"type": "string"}, "The other snapshot; without it: now."),
                _query("format", {"type": "string", "enum": ["json", "ndjson"]}, "ndjson: all, one change per line."),
                *_PAGE,
            ],
        )
    },
    "/snapshots/{name}/verification": {
        "get": _operation(
            "verify_snapshot",
            "Its digest, computed anew from what is known of that moment now",
            "200",
            answer(
                "Whether it holds.",
                {
                    "type": "object",
                    "required": ["holds", "promised", "found"],
                    "properties": {"holds": {"type": "boolean"}, "promised": _DIGEST, "found": _DIGEST},
                },
            ),
            [NAME],
        )
    },
}

SCHEMAS: dict[str, Any] = {
    "Snapshot": {
        "type": "object",
        "required": ["id", "name", "source", "namespace", "moment", "state", "waitingFor"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "name": {"type": "string", "description": "At a site, of a global's snapshot: `GLOBAL:NAME`."},
            "source": {"type": ["string", "null"], "description": "The global whose snapshot it is."},
            "namespace": {"type": "string"},
            "moment": _TIME,
            "state": {"type": "string", "enum": ["pinning", "kept", "released"]},
            "digest": {
                "type": ["string", "null"],
                "description": "Over id, uri, checksum and length of all, in any order.",
            },
            "artifacts": _nullable(_COUNT),
            "bytes": _nullable(_COUNT),
            "createdBy": {"type": "string"},
            "keptAt": _nullable(_TIME),
            "waitingFor": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Sites that have not spoken yet.",
            },
            "orphan": {"type": "boolean", "description": "Its global does not know it any more."},
        },
    },
    "SnapshotEntry": {
        "type": "object",
        "required": ["id", "uri", "contentChecksum", "contentLength", "contentLastModified"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "uri": {"type": "string"},
            "contentChecksum": {"type": "string"},
            "contentSha256": {"type": ["string", "null"]},
            "contentLength": _COUNT,
            "contentType": {"type": ["string", "null"]},
            "contentEncoding": {"type": ["string", "null"]},
            "contentLastModified": _TIME,
        },
    },
    "SnapshotChange": {
        "type": "object",
        "required": ["uri", "change", "before", "after"],
        "properties": {
            "uri": {"type": "string"},
            "change": {
                "type": "string",
                "enum": ["added", "removed", "changed", "renewed"],
                "description": "renewed: the same content under another id.",
            },
            "before": _nullable(_ENTRY),
            "after": _nullable(_ENTRY),
        },
    },
    "SnapshotDigest": {
        "type": "object",
        "properties": {"digest": {"type": "string"}, "artifacts": _COUNT, "bytes": _COUNT},
    },
    "SnapshotEntryPage": _page_of(_ENTRY),
}
