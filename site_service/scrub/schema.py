"""OpenAPI of the plain views of scrub."""

from __future__ import annotations

from typing import Any

TAGS = {"scrub": "When stored bytes were last known good, and what was found damaged."}

_INTEGER = {"type": "integer", "format": "int64"}
_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}
_RULE = {
    "namespace": {"type": "string", "description": "Empty: every URI without a rule of its own, by the settings."},
    "periodSeconds": _INTEGER,
    "bytesPerSecond": _INTEGER,
    "hours": {"type": "string", "description": "Hours of the day (UTC), like 22-6; empty: the whole day."},
    "files": _INTEGER,
    "bytes": _INTEGER,
    "verifiedFiles": {
        **_INTEGER,
        "description": "Read back from the device at least once; the others only when written.",
    },
    "verifiedBytes": _INTEGER,
    "overdueFiles": _INTEGER,
    "overdueBytes": _INTEGER,
    "oldestVerifiedAt": {**_TIME, "type": ["string", "null"]},
    "oldestSeconds": {"type": "number", "description": "Age of the oldest unverified byte."},
}
_COPY = {
    "uri": _TEXT,
    "id": {"type": "string", "format": "uuid"},
    "contentChecksum": _TEXT,
    "contentSha256": {"type": ["string", "null"]},
    "contentLength": _INTEGER,
    "verifiedAt": _TIME,
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


PATHS: dict[str, dict[str, Any]] = {
    "/scrub": {
        "get": {
            "operationId": "scrub_progress",
            "tags": ["scrub"],
            "summary": "How far the schedule of re-reading is kept, and what was found",
            "responses": {"200": {"description": "All rules.", "content": _content("ScrubProgress")}},
        },
        "post": {
            "operationId": "scrub_now",
            "tags": ["scrub"],
            "summary": "Read the copies of up to 10,000 URIs now, in the hours and bandwidth of their rules (grant operate)",
            "requestBody": {"required": True, "content": _content("VerifiedRequest")},
            "responses": {"200": {"description": "What was asked for.", "content": _content("ScrubRequested")}},
        },
    },
    "/verified": {
        "post": {
            "operationId": "verified_copies",
            "tags": ["scrub"],
            "summary": "When the copies of up to 10,000 URIs here were last known good",
            "requestBody": {"required": True, "content": _content("VerifiedRequest")},
            "responses": {
                "200": {
                    "description": "Those in service here; a URI that is left out has no copy here.",
                    "content": _content("VerifiedCopies"),
                }
            },
        }
    },
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "ScrubProgress": _object(
        {
            "rules": {"type": "array", "items": _object(_RULE)},
            "outcomes": {
                "type": "object",
                "description": "Files and bytes by result, since the beginning.",
                "additionalProperties": {"type": "object", "properties": {"files": _INTEGER, "bytes": _INTEGER}},
            },
            "damaged": {**_INTEGER, "description": "Copies out of service that wait for their repair;"},
            "unrepairable": {**_INTEGER, "description": "those of them for which no good copy was found anywhere."},
            "unreadable": {**_INTEGER, "description": "Copies in service that could not be read when it was tried."},
        }
    ),
    "ScrubRequested": _object(
        {
            "due": {**_INTEGER, "description": "Copies that are due now."},
            "sent": {**_INTEGER, "description": "Copies of the run that was sent; 0 while another one is under way."},
        }
    ),
    "VerifiedRequest": _object({"uris": {"type": "array", "items": _TEXT, "maxItems": 10_000}}),
    "VerifiedCopies": _object({"copies": {"type": "array", "items": _object(_COPY)}}),
}
