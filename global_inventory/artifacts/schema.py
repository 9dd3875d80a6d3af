"""OpenAPI of the catalogue."""

from __future__ import annotations

from typing import Any

from datamodel.snapshots.schema import AS_OF

TAGS = {"catalogue": "What is known, who holds it, and why an answer is what it is."}

_ITEM = {"$ref": "#/components/schemas/ListedArtifact"}
_AS_OF_PAGE = {"$ref": "#/components/schemas/SnapshotEntryPage"}
_JSON = "application/json"
_URI = {"name": "uri", "in": "query", "schema": {"type": "string"}}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


PATHS: dict[str, dict[str, Any]] = {
    "/artifacts": {
        "get": {
            "operationId": "list_artifacts",
            "tags": ["catalogue"],
            "summary": "Artifacts of a namespace by URI, in pages or as one stream; or one artifact",
            "parameters": [
                _query("namespace", {"type": "string"}, "Ends in `:` or `/`; without it everything is listed."),
                _query("uri", {"type": "string"}, "One artifact; then the answer is the artifact itself."),
                _query("after", {"type": "string"}, "The last URI of the page before; see `next`."),
                _query("limit", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}, "Of a page."),
                _query("format", {"type": "string", "enum": ["json", "ndjson"]}, "ndjson: all, one artifact per line."),
                AS_OF,
            ],
            "responses": {
                "200": {
                    "description": "A page, the stream, or the artifact.",
                    "content": {
                        _JSON: {
                            "schema": {"anyOf": [{"$ref": "#/components/schemas/ArtifactPage"}, _ITEM, _AS_OF_PAGE]}
                        },
                        "application/x-ndjson": {"schema": {"type": "string"}},
                    },
                }
            },
        }
    },
    "/artifacts/{id}": {
        "get": {
            "operationId": "get_artifact",
            "tags": ["catalogue"],
            "summary": "One artifact by id",
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
            ],
            "responses": {"200": {"description": "Known.", "content": {_JSON: {"schema": _ITEM}}}},
        }
    },
    "/explain": {
        "get": {
            "operationId": "explain",
            "tags": ["catalogue"],
            "summary": "All that is known about one URI: copies, tombstones, conflicts, harvests, ranking",
            "parameters": [_URI | {"required": True}],
            "responses": {
                "200": {"description": "Also for an unknown URI.", "content": {_JSON: {"schema": {"type": "object"}}}}
            },
        }
    },
}

SCHEMAS: dict[str, Any] = {
    "ListedArtifact": {
        "type": "object",
        "required": [
            "id",
            "uri",
            "contentChecksum",
            "contentLength",
            "contentLastModified",
            "lastModified",
            "copies",
            "releasing",
        ],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "uri": {"type": "string"},
            "contentChecksum": {"type": "string"},
            "contentSha256": {"type": ["string", "null"]},
            "contentLength": {"type": "integer", "format": "int64"},
            "contentType": {"type": ["string", "null"]},
            "contentEncoding": {"type": ["string", "null"]},
            "contentLastModified": {"type": "string", "format": "date-time"},
            "lastModified": {"type": "string", "format": "date-time"},
            "metaChecksum": {"type": "string"},
            "copies": {"type": "array", "items": {"type": "string"}, "description": "Names of the sites that hold it."},
            "releasing": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Names of the sites that may drop their copy: it is neither counted nor located.",
            },
        },
    },
    "ArtifactPage": {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": _ITEM},
            "next": {"type": ["string", "null"], "description": "The query of the next page; null on the last one."},
        },
    },
}
