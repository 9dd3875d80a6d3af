"""The feed in OpenAPI terms; `datamodel/openapi.py` merges these paths."""

from __future__ import annotations

from typing import Any

from harvest.streams import STREAMS

_PROBLEMS = {
    "400": "A parameter is malformed.",
    "401": "No credentials, or invalid ones.",
    "403": "The caller lacks the grant `harvest`.",
    "410": "The cursor is of another epoch or above the horizon: start again without one.",
    "503": "This database was restored and must be restamped first.",
}


def _parameter(name: str, description: str, schema: dict[str, Any], *, is_repeated: bool = False) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name, "in": "query", "description": description, "schema": schema}
    return parameter | {"explode": True} if is_repeated else parameter


def _responses(content: dict[str, Any], description: str) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    failures = {status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()}
    return {"200": {"description": description, "content": content}, **failures}


_COMMON = [
    _parameter("cursor", "From the end line of the page before; absent: from the start.", {"type": "string"}),
    _parameter("limit", "At most so many rows.", {"type": "integer", "minimum": 1, "maximum": 100_000}),
    _parameter(
        "format", "COPY text with header and end line, or JSON lines.", {"type": "string", "enum": ["tsv", "ndjson"]}
    ),
]
_NAMESPACE = _parameter(
    "namespace",
    "Only rows whose uri starts with this; may be repeated.",
    {"type": "array", "items": {"type": "string"}},
    is_repeated=True,
)
_HOLDER = _parameter(
    "holder",
    "At a global: also the artifacts that this site holds, and the winners over its own.",
    {"type": "string", "format": "uuid"},
)
_SENDER = _parameter(
    "sender",
    "At a global: without artifacts that it has from this site exactly as they were served there.",
    {"type": "string", "format": "uuid"},
)


def _stream_path(name: str) -> dict[str, Any]:
    parameters = [*_COMMON]
    if STREAMS[name].has_uri:
        parameters.append(_NAMESPACE)
    if name == "artifacts":
        parameters += [_HOLDER, _SENDER]
    columns = ", ".join(STREAMS[name].wire_names)
    content = {
        "text/tab-separated-values": {"schema": {"type": "string"}},
        "application/x-ndjson": {"schema": {"type": "string"}},
    }
    return {
        "get": {
            "operationId": f"harvest_{name.replace('-', '_')}",
            "summary": f"One page of the stream {name}",
            "description": f"Rows below the stable horizon, in the order of their transactions. Columns: {columns}.",
            "tags": ["harvest"],
            "parameters": parameters,
            "responses": _responses(content, "A page; it is whole only with its end line."),
        }
    }


_SET = [
    _parameter(
        "set",
        "`stored`: what the site stores. `known`: that, and what the namespaces name.",
        {"type": "string", "enum": ["stored", "known"]},
    ),
    _parameter("site", "Of which site; a site knows its own only.", {"type": "string", "format": "uuid"}),
    _NAMESPACE,
    _parameter(
        "except",
        "Namespaces that are left out; of all that a uri lies under the longest decides; may be repeated.",
        {"type": "array", "items": {"type": "string"}},
        is_repeated=True,
    ),
    _parameter(
        "prefix",
        "Only ids that begin so (digits without hyphens); may be repeated.",
        {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-f]{1,32}$"}},
        is_repeated=True,
    ),
]
_TREE_PARAMETERS = [
    *_SET,
    _parameter(
        "depth",
        "First digits of the id by which to sum; 65,536 sums at most.",
        {"type": "integer", "minimum": 0, "maximum": 32},
    ),
    _parameter(
        "then",
        "With depth 0: the depth that will be asked for next, if this answer tells of a difference.",
        {"type": "integer", "minimum": 0, "maximum": 32},
    ),
    _parameter("whole", "The ETag, without quotes, of the answer with depth 0 that this follows.", {"type": "string"}),
]
_LISTING_PARAMETERS = [
    *_SET,
    _parameter("after", "The last id of the page before.", {"type": "string", "format": "uuid"}),
    _parameter("limit", "At most so many rows.", {"type": "integer", "minimum": 1, "maximum": 100_000}),
]
_IDS = _parameter("ids", "Up to 1000 ids, separated by commas.", {"type": "string"})


def _reconcile_path(name: str, summary: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"text/tab-separated-values": {"schema": {"type": "string"}}}
    responses = _responses(content, "Whole only with its end line.")
    if name == "tree":
        responses["304"] = {"description": "The digests are those that If-None-Match names."}
    common = {"tags": ["harvest"], "responses": responses}
    properties = {each["name"]: each["schema"] for each in parameters}
    form = {"application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": properties}}}
    return {
        "get": {"operationId": f"harvest_{name}", "summary": summary, "parameters": parameters, **common},
        "post": {
            "operationId": f"harvest_{name}_form",
            "summary": f"{summary} (parameters as a form, for long lists)",
            "requestBody": {"content": form},
            **common,
        },
    }


_NEWS = {
    "type": "object",
    "required": ["epoch", "horizon", "inventoryId", "news"],
    "properties": {
        "epoch": {"type": "string"},
        "expiredUntil": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "Events that happened until then may be gone.",
        },
        "horizon": {"type": "integer", "format": "int64"},
        "inventoryId": {"type": "string", "format": "uuid"},
        "news": {"type": "boolean"},
        "settled": {"type": "integer", "format": "int64"},
        "streams": {"type": "array", "items": {"type": "string"}},
    },
}

PATHS: dict[str, dict[str, Any]] = {
    **{f"/harvest/{name}": _stream_path(name) for name in STREAMS},
    "/harvest/tree": _reconcile_path(
        "tree", "Digests of a set of artifacts by the first digits of the id", _TREE_PARAMETERS
    ),
    "/harvest/listing": _reconcile_path(
        "listing", "Ids and metaChecksums of the artifacts of a set whose ids begin so", _LISTING_PARAMETERS
    ),
    "/harvest/rows": _reconcile_path("rows", "What is known of single ids, as pages of the feed", [_IDS]),
    "/harvest/news": {
        "get": {
            "operationId": "harvest_news",
            "summary": "Whether rows have come, waiting for them",
            "tags": ["harvest"],
            "parameters": [
                _parameter("epoch", "Of the caller's cursors; absent: any.", {"type": "string"}),
                _parameter(
                    "after", "Rows at or after this transaction are news.", {"type": "integer", "format": "int64"}
                ),
                _parameter("wait", "Seconds to wait for news.", {"type": "integer", "minimum": 0, "maximum": 30}),
                _SENDER,
            ],
            "responses": _responses(
                {"application/json": {"schema": {"$ref": "#/components/schemas/HarvestNews"}}}, "As of now."
            ),
        }
    },
}
TAGS = {
    "harvest": "The change feed: what is new here since a cursor, for peers and for anyone with the grant `harvest`."
}
SCHEMAS: dict[str, dict[str, Any]] = {"HarvestNews": _NEWS}
