"""Listings: `/artifacts?namespace=…` (pages, NDJSON) and `/files/{namespace}` (JSON pages, checksum lines, HTML to walk).

Streams are made page by page: their length needs neither memory nor an open transaction. A stream that fails half way is cut without its
last chunk, so that no client takes it for complete.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import http_date
from django.views.decorators.csrf import csrf_exempt

from datamodel.auth import caller_of
from datamodel.doors import filtered
from datamodel.errors import InvalidRequestError
from datamodel.pages import chunks, next_page, page_bounds
from datamodel.permissions import Grant, reach, require, require_somewhere
from datamodel.reach import Reach
from datamodel.representation import checksums_of
from datamodel.rules import ArtifactRow
from datamodel.snapshots.views import list_as_of
from datamodel.uris import Namespace
from datamodel.wire import artifact_item
from site_service.files import queries
from site_service.files.queries import Entry
from site_service.files.rules import quote_name

_FORMATS = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "text": "text/plain",
    "html": "text/html",
}


@csrf_exempt
@filtered(Grant.READ)
def artifacts(request: HttpRequest) -> HttpResponseBase:
    """`GET /artifacts`: everything known here, stored or not, by namespace."""
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD"])
    readable = reach(caller_of(request), Grant.READ)
    namespace = request.GET.get("namespace", "")
    prefix = Namespace.parse(namespace).value if namespace else ""
    stored_only = _flag(request, "stored")
    if "as_of" in request.GET:
        if stored_only:
            raise InvalidRequestError("what was stored then is not known: leave out stored, or as_of")
        # What was there then is listed whole: for whoever may read all of it.
        require(caller_of(request), Grant.READ, Namespace.parse(namespace) if namespace else None)
        return list_as_of(request, prefix, is_stream=_format(request, ("json", "ndjson")) == "ndjson")
    if _format(request, ("json", "ndjson")) == "ndjson":
        return _stream(request, queries.json_lines(prefix, readable, stored_only=stored_only), "ndjson")
    limit, after = page_bounds(request)
    page = queries.artifact_page(prefix, readable, after=after, limit=limit, stored_only=stored_only)
    connection.close()
    items = [_artifact_json(listed.artifact, is_stored=listed.is_stored) for listed in page]
    last = page[-1].artifact.uri if len(page) == limit else None
    return _json_page(request, {"items": items, "next": next_page(request, last)})


def list_namespace(request: HttpRequest, namespace: Namespace | None) -> HttpResponseBase:
    """`GET /files/{namespace}`: the stored names directly below it; as text every stored file below it, for sha256sum -c."""
    caller = caller_of(request)
    require_somewhere(caller, Grant.READ)
    readable = reach(caller, Grant.READ)
    match _format(request, ("html", "json", "text")):
        case "json":
            return _entries_json(request, namespace, readable)
        case "text":
            prefix = namespace.value if namespace is not None else ""
            return _stream(request, chunks(_checksum_lines(prefix, readable)), "text")
    return _stream(request, chunks(_html_lines(namespace, readable)), "html")


def _format(request: HttpRequest, offered: tuple[str, ...]) -> str:
    """By `?format=`, else the first offered one that Accept names (before wildcards), else the first."""
    asked = request.GET.get("format")
    if asked is not None:
        if asked not in offered:
            raise InvalidRequestError(f"invalid format {asked!r}: choose one of {', '.join(offered)}")
        return asked
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(",")]
    by_type = {_FORMATS[name]: name for name in offered}
    return next((by_type[kind] for kind in accepted if kind in by_type), offered[0])


def _flag(request: HttpRequest, name: str) -> bool:
    text = request.GET.get(name, "false").lower()
    if text not in {"true", "false"}:
        raise InvalidRequestError(f"invalid {name} {text!r}: write true or false")
    return text == "true"


def _json_page(request: HttpRequest, page: dict[str, object]) -> HttpResponse:
    response = HttpResponse(json.dumps(page), content_type="application/json")
    response["Cache-Control"] = "no-store"
    if request.method == "HEAD":
        response["Content-Length"] = str(len(response.content))
    return response


def _stream(request: HttpRequest, content: Iterable[bytes], kind: str) -> HttpResponseBase:
    charset = "" if kind == "ndjson" else "; charset=utf-8"
    if request.method == "HEAD":
        response: HttpResponseBase = HttpResponse(content_type=_FORMATS[kind] + charset)
    else:
        response = StreamingHttpResponse(content, content_type=_FORMATS[kind] + charset)
    response["Cache-Control"] = "no-store"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'; frame-ancestors 'none'"
    return response


def _artifact_json(artifact: ArtifactRow, *, is_stored: bool) -> dict[str, object]:
    return {**artifact_item(artifact), "stored": is_stored}


def _entries_json(request: HttpRequest, namespace: Namespace | None, readable: Reach) -> HttpResponse:
    limit, after = page_bounds(request)
    found = queries.entries(namespace, readable, after=after)
    page = [entry for entry, _ in zip(found, range(limit), strict=False)]
    connection.close()
    last = page[-1].uri if len(page) == limit else None
    items = [_entry_json(entry) for entry in page]
    name = namespace.value if namespace is not None else None
    return _json_page(request, {"namespace": name, "items": items, "next": next_page(request, last)})


def _entry_json(entry: Entry) -> dict[str, object]:
    if entry.artifact is None:
        return {"name": entry.name, "namespace": entry.uri}
    return {"name": entry.name} | _artifact_json(entry.artifact, is_stored=True)


def _checksum_lines(prefix: str, readable: Reach) -> Iterator[str]:
    """What `sha256sum -c` reads; an artifact of which only another digest is known becomes a comment, never silence."""
    for listed in queries.all_artifacts(prefix, readable, stored_only=True):
        artifact = listed.artifact
        name = unquote(artifact.uri.removeprefix(prefix))
        sha256 = next((c.hex for c in checksums_of(artifact) if c.algorithm == "sha-256"), None)
        yield (
            checksum_line(sha256, name)
            if sha256
            else f"# no sha-256 is known, only {artifact.content_checksum}: {name}\n"
        )


def checksum_line(sha256: str, name: str) -> str:
    """As coreutils write it: a leading backslash says that the name is escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}\n"


def _html_lines(namespace: Namespace | None, readable: Reach) -> Iterator[str]:
    """One link per line, relative, so that it holds behind any proxy; deeper namespaces look like directories."""
    title = html.escape(namespace.value if namespace is not None else settings.INVENTORY_NAME)
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
    yield f"<body><h1>{title}</h1>\n<pre>\n"
    # A path like /files/cadc: is no directory for a browser: its links start beside it.
    base = namespace.value if namespace is not None and namespace.value.endswith(":") else ""
    for entry in queries.entries(namespace, readable):
        name = unquote(entry.name)
        link = quote_name(base + name)
        yield f'<a href="./{link}">{html.escape(_visible(name))}</a>{_details(entry)}\n'
    yield "</pre></body></html>\n"


def _visible(name: str) -> str:
    """What cannot be seen, or turns round what can, is written out: nobody shall take a name for another."""
    return "".join(letter if letter.isprintable() else quote(letter) for letter in name)


def _details(entry: Entry) -> str:
    if entry.artifact is None:
        return ""
    artifact = entry.artifact
    return f"  {http_date(artifact.content_last_modified.timestamp())}  {artifact.content_length}"
