"""OpenAPI of releases."""

from __future__ import annotations

from typing import Any

from global_inventory.releases.rules import Outcome

TAGS = {"releases": "Sites ask before they drop a copy."}

_TEXT = {"type": "string"}
_UUID = {"type": "string", "format": "uuid"}
_RELEASE = {**_UUID, "description": "The site's own name for this release; a repeat under the same is granted again."}
_REFUSALS = [
    outcome.value for outcome in Outcome if outcome not in {Outcome.GRANTED, Outcome.REPEATED, Outcome.RETURNED}
]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _files(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": 1000, "items": _object(properties)}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _post(name: str, summary: str, request: str, description: str, answer: str) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "tags": ["releases"],
            "summary": summary,
            "requestBody": {"required": True, "content": _content(request)},
            "responses": {"200": {"description": description, "content": _content(answer)}},
        }
    }


PATHS: dict[str, dict[str, Any]] = {
    "/releases": {
        **_post(
            "release_copies",
            "Which of up to 1,000 copies the site may drop (grant harvest)",
            "ReleaseRequest",
            "An answer for each, in the order asked. No answer is a refusal.",
            "ReleaseAnswer",
        ),
        "get": {
            "operationId": "released_copies",
            "tags": ["releases"],
            "summary": "Copies that the site may drop and, as far as is known here, has not (grant harvest)",
            "parameters": [
                {"name": "site", "in": "query", "required": True, "schema": _UUID},
                {"name": "after", "in": "query", "schema": _UUID, "description": "`next` of the page before."},
            ],
            "responses": {"200": {"description": "A page by id.", "content": _content("ReleasedPage")}},
        },
    },
    "/releases/returned": _post(
        "return_releases",
        "The site keeps copies that it was allowed to drop (grant harvest)",
        "ReleaseReturn",
        "They count and are located again. Repeatable.",
        "ReleaseReturned",
    ),
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "ReleaseRequest": _object(
        {
            "site": {**_UUID, "description": "The asking site, which must be harvested here."},
            "files": _files(
                {
                    "release": _RELEASE,
                    "id": _UUID,
                    "uri": _TEXT,
                    "digest": {**_TEXT, "description": "`md5:HEX` or `sha-256:HEX`."},
                    "storedAt": {
                        "type": "string",
                        "format": "date-time",
                        "description": "When this copy was stored, by the site's clock; later news of a copy are about another one.",
                    },
                }
            ),
        }
    ),
    "ReleaseAnswer": _object(
        {
            "site": _UUID,
            "files": _files(
                {
                    "release": _UUID,
                    "id": _UUID,
                    "granted": {"type": "boolean"},
                    "reason": {"type": ["string", "null"], "enum": [*_REFUSALS, None]},
                    "copies": {"type": "integer", "description": "Verified copies that remain at other sites."},
                    "demanded": {"type": "integer", "description": "How many must."},
                }
            ),
        }
    ),
    "ReleaseReturn": _object({"site": _UUID, "files": _files({"release": _RELEASE, "id": _UUID})}),
    "ReleasedPage": _object(
        {
            "site": _UUID,
            "files": {"type": "array", "maxItems": 1000, "items": _object({"id": _UUID, "release": _UUID})},
            "next": {"type": ["string", "null"], "format": "uuid", "description": "null on the last page."},
        }
    ),
    "ReleaseReturned": _object({"site": _UUID, "returned": {"type": "integer", "minimum": 0}}),
}
