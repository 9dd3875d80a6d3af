"""OpenAPI of negotiation."""

from __future__ import annotations

from typing import Any

TAGS = {"locate": "Transfer negotiation: from where to get an artifact, to where to put it."}

_POSITION = {
    "name": "x-inventory-position",
    "in": "header",
    "schema": {"type": "string"},
    "description": "As a site answered a write: the answer is not older than that write (waits up to two seconds).",
}
_URI = {
    "name": "uri",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The artifact's URI, as it is or percent-encoded.",
}
_FORMAT = {
    "name": "format",
    "in": "query",
    "schema": {"type": "string", "enum": ["metalink"]},
    "description": "metalink: a Metalink 4 document of all copies. Any other query is passed on to the site.",
}
_TEXT = {"schema": {"type": "string"}}
_HEADERS = {
    name: {"schema": {"type": "string"}, "description": words}
    for name, words in {
        "Digest": "The content checksum, as `md5=BASE64`.",
        "Repr-Digest": "Every digest that is known (RFC 9530).",
        "x-artifact-id": "The artifact's id.",
        "ETag": "The content checksum as a strong entity tag.",
    }.items()
}
_LOCATION = {
    "Location": {"schema": {"type": "string", "format": "uri"}, "description": "A signed URL at the best site."}
}
_LINK = {
    "Link": {
        "schema": {"type": "string"},
        "description": "The other copies (rel=duplicate, RFC 6249) and the Metalink.",
    }
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _file(operation: str, summary: str, responses: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": f"{operation}_file",
        "tags": ["locate"],
        "summary": summary,
        "parameters": [_URI, _POSITION, *more],
        "responses": responses,
    }


def _sent_on(operation: str, summary: str) -> dict[str, Any]:
    return _file(operation, summary, {"307": {"description": "Repeat the request there.", "headers": _LOCATION}})


PATHS: dict[str, dict[str, Any]] = {
    "/locate": {
        "post": {
            "operationId": "locate",
            "tags": ["locate"],
            "summary": "Negotiate a transfer of one artifact, or reads of up to 10,000",
            "parameters": [_POSITION],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": _ref("LocateRequest")},
                    "text/xml": {"schema": {"type": "string", "description": "A VOSpace 2.1 transfer document."}},
                },
            },
            "responses": {
                "200": {
                    "description": "Signed URLs, best first. In bulk an unknown URI has an error entry in its place.",
                    "content": {
                        "application/json": {"schema": {"oneOf": [_ref("Located"), _ref("LocatedMany")]}},
                        "text/xml": _TEXT,
                    },
                }
            },
        }
    },
    "/files/{uri}": {
        "head": _file("head", "What is known of an artifact", {"200": {"description": "Known.", "headers": _HEADERS}}),
        "get": _file(
            "get",
            "Redirect to the best copy",
            {
                "303": {"description": "Get it there.", "headers": _LOCATION | _LINK},
                "200": {"description": "All copies.", "content": {"application/metalink4+xml": _TEXT}},
            },
            _FORMAT,
        ),
        "put": _sent_on("put", "Redirect a new or replacing content to a site"),
        "post": _sent_on("post", "Redirect a change of metadata to a site that holds the artifact"),
        "delete": _sent_on("delete", "Redirect a deletion to a site that holds the artifact"),
    },
}

_URLS = {"type": "array", "items": _ref("Offer"), "description": "Best first."}
_CONTENT = {
    "id": {"type": "string", "format": "uuid"},
    "uri": {"type": "string"},
    "contentChecksum": {"type": "string", "examples": ["md5:5d41402abc4b2a76b9719d911017c592"]},
    "contentSha256": {"type": ["string", "null"]},
    "contentLength": {"type": "integer", "format": "int64"},
}
SCHEMAS: dict[str, Any] = {
    "LocateRequest": {
        "type": "object",
        "properties": {
            "uri": {"type": "string"},
            "uris": {"type": "array", "items": {"type": "string"}, "maxItems": 10_000},
            "direction": {"type": "string", "enum": ["get", "put"], "default": "get"},
        },
        "description": "Either `uri`, or `uris` with the direction get.",
    },
    "Offer": {
        "type": "object",
        "required": ["url", "site", "reason"],
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "site": {"type": "string"},
            "reason": {"type": "string", "description": "Why it stands in this place."},
        },
    },
    "Located": {
        "type": "object",
        "required": ["uri", "direction", "expiresAt", "urls"],
        "properties": {
            **_CONTENT,
            "contentType": {"type": ["string", "null"]},
            "contentEncoding": {"type": ["string", "null"]},
            "contentLastModified": {"type": "string", "format": "date-time"},
            "lastModified": {"type": "string", "format": "date-time"},
            "metaChecksum": {"type": "string"},
            "direction": {"type": "string", "enum": ["get", "put"]},
            "expiresAt": {"type": "string", "format": "date-time"},
            "urls": _URLS,
        },
        "description": "For a put of something new only `uri`, `direction`, `expiresAt` and `urls`.",
    },
    "LocatedMany": {
        "type": "object",
        "required": ["direction", "expiresAt", "results"],
        "properties": {
            "direction": {"const": "get"},
            "expiresAt": {"type": "string", "format": "date-time"},
            "results": {
                "type": "array",
                "description": "One for each URI, in the order asked.",
                "items": {
                    "type": "object",
                    "required": ["uri", "urls"],
                    "properties": {
                        **_CONTENT,
                        "requested": {
                            "type": "string",
                            "description": "The URI as asked, if that is not its own form.",
                        },
                        "urls": _URLS,
                        "error": {
                            "type": "object",
                            "required": ["code", "detail"],
                            "properties": {"code": {"type": "string"}, "detail": {"type": "string"}},
                        },
                    },
                },
            },
        },
    },
}
