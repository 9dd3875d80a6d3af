"""OpenAPI of the byte plane and its listings: plain views, described by hand."""

from __future__ import annotations

from typing import Any

from datamodel.snapshots.schema import AS_OF

Json = dict[str, Any]

TAGS = {"files": "Content of artifacts: put, get, delete, put transactions.", "listings": "What is here."}


def _header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}


def _parameter(name: str, place: str, description: str, schema: Json | None = None, *, required: bool = False) -> Json:
    found = {"name": name, "in": place, "description": description, "schema": schema or {"type": "string"}}
    return found | ({"required": True} if required else {})


def _answer(description: str, headers: Json | None = None, content: Json | None = None) -> Json:
    found: Json = {"description": description}
    return found | ({"headers": headers} if headers else {}) | ({"content": content} if content else {})


def _operation(
    name: str, tag: str, summary: str, responses: Json, *, parameters: list[Json] | None = None, **parts: Any
) -> Json:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": parameters or [],
        "responses": responses,
        **parts,
    }


_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_POSITION = {
    "x-inventory-position": _header(
        "Send it to the global inventory: it then answers only when it knows of this write."
    )
}
_ARTIFACT_HEADERS = {
    "x-artifact-id": _header("Id of this content; a replacement has another one."),
    "Digest": _header("md5=BASE64: the checksum that the federation compares."),
    "Repr-Digest": _header("RFC 9530; sha-256 if known, or what Want-Repr-Digest asks for."),
    "ETag": _header("Strong; the content checksum, the same at every site."),
    "Last-Modified": _header("When the content was stored."),
}
_READ_HEADERS = _ARTIFACT_HEADERS | {
    "Accept-Ranges": _header("bytes"),
    "Content-Disposition": _header("The file name (RFC 6266); attachment for types that could act in a browser."),
    "Content-Encoding": _header("As put."),
}
_TRANSACTION_HEADERS = {
    "x-put-txn-id": _header("Names the put transaction."),
    "x-put-segment-minbytes": _header("Least size of a segment but the last.", "integer"),
    "x-put-segment-maxbytes": _header("Greatest size of a segment, if there is one.", "integer"),
    "Digest": _header("Of all bytes so far; absent while there are none."),
    "Repr-Digest": _header("Of all bytes so far; absent while there are none."),
}
_URI = _parameter(
    "uri",
    "path",
    "Artifact URI, raw or percent-encoded, as cadc:PATH/NAME; for GET and HEAD `:fo/NAME` may follow: the name to save it under.",
    required=True,
)
_TOKEN = _parameter("token", "path", "Permission of a signed URL, as negotiated.", required=True)
_TXN_ID = _parameter("x-put-txn-id", "header", "A put transaction, as start answered.")
_IF_MATCH = _parameter("If-Match", "header", "Entity tags, or * for any: else 412.")
_IF_NONE_MATCH = _parameter("If-None-Match", "header", "Entity tags, or * for none at all: else 412 (304 for reads).")
_CONDITIONS = [
    _IF_MATCH,
    _IF_NONE_MATCH,
    _parameter("If-Modified-Since", "header", "An HTTP date: 304 if nothing is newer."),
    _parameter("If-Unmodified-Since", "header", "An HTTP date: 412 if something is newer."),
    _parameter("Want-Repr-Digest", "header", "RFC 9530: sha-256=10, md5=3."),
]
_RANGES = [
    _parameter("Range", "header", "bytes=A-B, bytes=A-, bytes=-N, or up to 16 of these."),
    _parameter("If-Range", "header", "An entity tag or date: the range holds only for that content."),
    _parameter("Cache-Control", "header", "no-store: you read it once; what is sent need not stay in memory here."),
]
_DECLARED = [
    _parameter("Digest", "header", "md5=BASE64 (or sha-1, sha-256, sha-384, sha-512): of the whole content; else 412."),
    _parameter("Repr-Digest", "header", "sha-256=:BASE64: (RFC 9530), of the whole content; else 412."),
    _parameter("Content-MD5", "header", "BASE64, of this body; else 412."),
    _parameter("Content-Digest", "header", "sha-256=:BASE64: (RFC 9530), of this body; else 412."),
    _parameter("Content-Encoding", "header", "Kept word for word; the content is never decoded."),
    _parameter(
        "x-put-txn-op",
        "header",
        "start begins a put transaction with this body (or none); commit, without body, ends it.",
        {"type": "string", "enum": ["start", "commit"]},
    ),
    _TXN_ID,
    _parameter("x-total-length", "header", "Length of the whole content of a put transaction.", {"type": "integer"}),
    _parameter("Want-Receipt", "header", "?1: answer with a signed receipt.", {"type": "string", "enum": ["?1", "?0"]}),
    _IF_MATCH,
    _IF_NONE_MATCH,
]
_METADATA = {
    "contentType": {"type": "string", "maxLength": 128},
    "contentEncoding": {"type": "string", "maxLength": 128},
}
_PUT_ANSWERS = {
    "201": _answer(
        "Stored. With `Want-Receipt: ?1` the body is the receipt: a JWS in compact form (EdDSA), verified by `/pubkey`.",
        _ARTIFACT_HEADERS | _POSITION,
        {"application/jose": {"schema": {"type": "string"}}},
    ),
    "202": _answer("Part of a put transaction.", _TRANSACTION_HEADERS),
    "400": _answer("A header is wrong, or the body was cut: nothing was stored."),
    "412": _answer("A precondition, digest or length does not hold: nothing was stored."),
    "413": _answer("Too large; the detail starts with the limit."),
    "507": _answer("No room here."),
}


def _get(suffix: str) -> Json:
    answers = {
        "200": _answer("All bytes.", _READ_HEADERS, _BYTES),
        "206": _answer(
            "One range, or several as multipart/byteranges; digests are those of the whole.", _READ_HEADERS, _BYTES
        ),
        "304": _answer("Not modified."),
        "404": _answer("Not stored here."),
        "416": _answer("The range lies outside.", {"Content-Range": _header("bytes */LENGTH")}),
    }
    return _operation(f"get_file{suffix}", "files", "Get content", answers, parameters=[*_CONDITIONS, *_RANGES])


def _head(suffix: str) -> Json:
    answers = {
        "200": _answer("All that GET says, or the state of a put transaction.", _READ_HEADERS | _TRANSACTION_HEADERS),
        "304": _answer("Not modified."),
        "404": _answer("Not stored here, or no such put transaction."),
    }
    return _operation(f"head_file{suffix}", "files", "Ask about content", answers, parameters=[*_CONDITIONS, _TXN_ID])


def _put(suffix: str) -> Json:
    return _operation(
        f"put_file{suffix}",
        "files",
        "Put content, whole or as part of a put transaction",
        _PUT_ANSWERS,
        parameters=_DECLARED,
        requestBody={"required": True, "content": _BYTES},
    )


def _post(suffix: str) -> Json:
    op = _parameter(
        "x-put-txn-op",
        "header",
        "revert undoes the last segment; abort drops all.",
        {"type": "string", "enum": ["revert", "abort"]},
    )
    form = {"application/x-www-form-urlencoded": {"schema": {"type": "object", "properties": _METADATA}}}
    answers = {
        "202": _answer("Changed, or reverted.", _READ_HEADERS | _POSITION | _TRANSACTION_HEADERS),
        "204": _answer("Aborted."),
        "404": _answer("Not stored here, or no such put transaction."),
    }
    return _operation(
        f"post_file{suffix}",
        "files",
        "Change type or encoding; revert or abort a put transaction",
        answers,
        parameters=[op, _TXN_ID, _IF_MATCH],
        requestBody={"content": form},
    )


def _delete(suffix: str) -> Json:
    answers = {"204": _answer("Deleted everywhere.", _POSITION), "404": _answer("Unknown here.")}
    return _operation(f"delete_file{suffix}", "files", "Delete an artifact", answers, parameters=[_IF_MATCH])


def _file(suffix: str, parameters: list[Json]) -> Json:
    item = {
        "get": _get(suffix),
        "head": _head(suffix),
        "put": _put(suffix),
        "post": _post(suffix),
        "delete": _delete(suffix),
    }
    for operation in item.values():
        operation["parameters"] = parameters + operation["parameters"]
    return item


_LIMIT = _parameter(
    "limit", "query", "Items of a page.", {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000}
)
_AFTER = _parameter("after", "query", "Only what sorts after this URI; `next` of a page has it.")


def _format(*names: str) -> Json:
    return _parameter("format", "query", "Instead of Accept.", {"type": "string", "enum": list(names)})


def _page_of(item: Json) -> Json:
    next_page = {"type": ["string", "null"], "description": "The query of the next page; null at the end."}
    return {
        "type": "object",
        "required": ["items", "next"],
        "properties": {"items": {"type": "array", "items": item}, "next": next_page},
    }


_ARTIFACT = {"$ref": "#/components/schemas/StoredArtifact"}
_AS_OF_PAGE = {"$ref": "#/components/schemas/SnapshotEntryPage"}
_TEXT = {"schema": {"type": "string"}}
_DIRECTORY = _parameter("namespace", "path", "As cadc:CFHT; cadc: itself is listed at /files/cadc:", required=True)
_NAMESPACE = _parameter("namespace", "query", "Prefix that ends in : or /, as cadc:CFHT/.")
_STORED = _parameter("stored", "query", "true: only what is stored here.", {"type": "boolean", "default": False})

SCHEMAS: dict[str, Json] = {
    "FilesRequest": {
        "type": "object",
        "required": ["urls"],
        "properties": {
            "urls": {
                "type": "array",
                "minItems": 1,
                "maxItems": 256,
                "description": "Signed URLs of this site, relative: from `files/` on, as they were negotiated.",
                "items": {"type": "string", "pattern": "^files/[^/:?#]+/[^?#]+$"},
            }
        },
    },
    "StoredArtifact": {
        "type": "object",
        "required": ["id", "uri", "contentChecksum", "contentLength", "contentLastModified", "lastModified", "stored"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "uri": {"type": "string"},
            "contentChecksum": {"type": "string", "description": "md5:HEX"},
            "contentSha256": {"type": ["string", "null"]},
            "contentLength": {"type": "integer", "format": "int64"},
            "contentType": {"type": ["string", "null"]},
            "contentEncoding": {"type": ["string", "null"]},
            "contentLastModified": {"type": "string", "format": "date-time"},
            "lastModified": {"type": "string", "format": "date-time"},
            "stored": {"type": "boolean"},
        },
    },
    "NamespaceEntry": {
        "type": "object",
        "required": ["name"],
        "description": "An artifact directly below the namespace, or (`namespace` is there) a deeper namespace.",
        "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}, "uri": {"type": "string"}},
    },
}
_PARTS = (
    "One part per URL, in their order. Each is an `application/http` message: the status line, headers and body that a GET of this URL "
    "would be answered, a problem (RFC 9457) too. What would make the answer larger than 8 MiB is a problem of status 413: ask for it "
    "alone. Without the last boundary the answer is cut."
)
_ENTRY_PAGE = {"schema": _page_of({"$ref": "#/components/schemas/NamespaceEntry"})}

PATHS: dict[str, Json] = {
    "/files/{uri}": _file("", [_URI]),
    "/files/{token}/{uri}": _file("_by_signed_url", [_TOKEN, _URI]),
    "/batch": {
        "post": _operation(
            "get_files",
            "files",
            "Get many small files in one answer; each URL carries its own permission",
            {
                "200": _answer(_PARTS, content={"multipart/mixed": {"schema": {"type": "string", "format": "binary"}}}),
                "400": _answer("Not 1 to 256 signed URLs of this site."),
                "413": _answer("A body of more than 1 MiB."),
            },
            security=[],
            requestBody={
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FilesRequest"}}},
            },
        )
    },
    "/files/{namespace}/": {
        "get": _operation(
            "list_namespace",
            "listings",
            "Names directly below a namespace; as text every file below it, for sha256sum -c",
            {
                "200": _answer(
                    "HTML that walkers can walk, JSON in pages, or checksum lines.",
                    content={"text/html": _TEXT, "application/json": _ENTRY_PAGE, "text/plain": _TEXT},
                )
            },
            parameters=[_DIRECTORY, _format("html", "json", "text"), _LIMIT, _AFTER],
        ),
    },
    "/artifacts": {
        "get": _operation(
            "list_artifacts",
            "listings",
            "Artifacts known here, stored or not",
            {
                "200": _answer(
                    "A page, or everything as one JSON object per line.",
                    content={
                        "application/json": {"schema": {"anyOf": [_page_of(_ARTIFACT), _AS_OF_PAGE]}},
                        "application/x-ndjson": {"schema": _ARTIFACT},
                    },
                )
            },
            parameters=[_NAMESPACE, _STORED, _format("json", "ndjson"), _LIMIT, _AFTER, AS_OF],
        )
    },
}
