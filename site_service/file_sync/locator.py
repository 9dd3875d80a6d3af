"""Where to get artifacts from: bulk negotiation with the globals of this site, the next one when one does not answer."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from datamodel import outbound
from datamodel.errors import RemoteError, RemoteProtocolError, RemoteRefusedError, RemoteUnavailableError
from datamodel.models import RemoteInventory
from datamodel.service_tokens import Credential
from site_service.file_sync.rules import Source, Wanted
from site_service.file_sync.shunned import Shunned

MAX_URIS = 10_000
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_SHUNNED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Global:
    """A global inventory that negotiates for this site."""

    name: str
    url: str
    credential: Credential


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one artifact: ranked sources, or the error that says why there are none."""

    sources: tuple[Source, ...]
    error: RemoteError | None = None


def configured_globals() -> list[Global]:
    """The enabled globals, those that failed within the last minute last."""
    rows = RemoteInventory.objects.filter(role=RemoteInventory.Role.GLOBAL, enabled=True).order_by("name")
    found = [Global(row.name, row.url, Credential.of(row)) for row in rows]
    return sorted(found, key=lambda each: each.name in _shunned.names())


def locate(globals_: Sequence[Global], wanted: Sequence[Wanted]) -> dict[uuid.UUID, Answer]:
    """An answer for every artifact; what one global cannot say, or gives no source for, the next one is asked.

    Raises `RemoteError` when no global gave an answer at all: then nothing is known about any artifact.
    """
    answers: dict[uuid.UUID, Answer] = {}
    failure: RemoteError = RemoteUnavailableError("no global is configured: this site cannot ask who has its files")
    has_answer = False
    for each in globals_:
        open_questions = [one for one in wanted if not answers.get(one.artifact_id, _NOTHING).sources]
        if not open_questions:
            break
        try:
            answers |= _ask(each, open_questions)
            has_answer = True
        except RemoteError as error:
            _shunned.add(each.name)
            failure = error
    if not has_answer:
        raise failure
    return answers


_NOTHING = Answer(())


# A dead global must not cost every batch its timeout.
_shunned = Shunned(_SHUNNED_SECONDS)


def _ask(asked: Global, wanted: Sequence[Wanted]) -> dict[uuid.UUID, Answer]:
    by_uri = {one.uri: one for one in wanted}
    body = json.dumps({"uris": list(by_uri), "direction": "get"})
    results = _results(asked, _post(asked, body))
    found = {}
    for result in results:
        uri = result.get("requested", result.get("uri"))
        if isinstance(uri, str) and (one := by_uri.get(uri)) is not None:
            found[one.artifact_id] = _located(asked, one, result)
    silence = RemoteProtocolError(f"{asked.name} left the artifact out of its answer", remote=asked.name)
    return {one.artifact_id: found.get(one.artifact_id, Answer((), silence)) for one in wanted}


@functools.cache
def _pools() -> urllib3.PoolManager:
    return outbound.pool_manager(maxsize=settings.INVENTORY_SYNC_THREADS)


def _post(asked: Global, body: str) -> bytes:
    try:
        response = _pools().request(
            "POST",
            f"{asked.url}/locate",
            body=body,
            headers={
                **asked.credential.headers,
                "Content-Type": "application/json",
                "Accept": "application/json",
                "User-Agent": "storage-inventory",
            },
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(
                connect=min(10.0, settings.INVENTORY_REMOTE_TIMEOUT_SECONDS),
                read=settings.INVENTORY_REMOTE_TIMEOUT_SECONDS,
            ),
            preload_content=False,
        )
        data = response.read(_MAX_ANSWER_BYTES)
        response.close()
    except HTTPError as error:
        raise RemoteUnavailableError(f"{asked.name} does not answer: {error}", remote=asked.name) from error
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RemoteUnavailableError(f"{asked.name} answered {response.status}", remote=asked.name)
    if response.status != HTTPStatus.OK:
        raise RemoteRefusedError(f"{asked.name} answered {response.status} to locate", remote=asked.name)
    return data


def _results(asked: Global, data: bytes) -> Iterable[Mapping[str, Any]]:
    try:
        results = json.loads(data)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteProtocolError(f"{asked.name} gave no list of results to locate", remote=asked.name) from error
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def _located(asked: Global, wanted: Wanted, result: Mapping[str, Any]) -> Answer:
    urls = result.get("urls") or []
    sources = tuple(
        Source(str(url["url"]), str(url.get("site", ""))) for url in urls if isinstance(url, dict) and url.get("url")
    )
    if not sources:
        return Answer((), _error(asked, wanted, result.get("error")))
    if str(result.get("id", wanted.artifact_id)).lower() != str(wanted.artifact_id):
        replaced = (
            f"{asked.name} knows {wanted.uri} as artifact {result['id']}: it was replaced, or news are on their way"
        )
        return Answer((), RemoteUnavailableError(replaced, remote=asked.name))
    return Answer(sources)


def _error(asked: Global, wanted: Wanted, error: object) -> RemoteError:
    """No copy known to the global may mean only that it has not heard of one yet: always worth another try."""
    detail = error.get("detail") if isinstance(error, dict) else error
    return RemoteUnavailableError(f"{asked.name}: {detail or f'no source for {wanted.uri}'}", remote=asked.name)
