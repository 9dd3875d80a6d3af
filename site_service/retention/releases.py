"""Asking a global whether copies may go, and telling it that they stay. HTTP only; nothing is written here."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from datamodel import outbound
from datamodel.errors import RemoteProtocolError, RemoteRefusedError, RemoteUnavailableError
from datamodel.models import RemoteInventory
from datamodel.wire import time_text
from harvest.client import Remote
from site_service.retention.rules import Answer

MAX_FILES = 1000
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_REFUSED_REASON_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """A copy that shall go; `stored_at` says which, if there are news of several."""

    release_id: uuid.UUID
    artifact_id: uuid.UUID
    uri: str
    content_checksum: str
    stored_at: datetime


def configured_globals() -> list[Remote]:
    """Who must allow it: every global that this site knows and has not disabled. Raises `NotConfiguredError`."""
    rows = RemoteInventory.objects.filter(role=RemoteInventory.Role.GLOBAL, enabled=True).order_by("name")
    return [Remote.of(row) for row in rows]


def answer_seconds() -> float:
    """Patience with a global, which itself waits for the other sites."""
    return 2.0 * settings.INVENTORY_REMOTE_TIMEOUT_SECONDS


def ask_release(asked: Remote, *, site_id: uuid.UUID, wanted: Sequence[Wanted]) -> dict[uuid.UUID, Answer]:
    """What it says of each of at most MAX_FILES copies; what it leaves out is silence.

    Raises `RemoteUnavailableError`, `RemoteRefusedError`, and `RemoteProtocolError` for an answer that is not for this site or of another form.
    """
    files = [
        {
            "release": str(one.release_id),
            "id": str(one.artifact_id),
            "uri": one.uri,
            "digest": one.content_checksum,
            "storedAt": time_text(one.stored_at),
        }
        for one in wanted
    ]
    document = _post(asked, "/releases", site_id, files)
    try:
        found = {uuid.UUID(entry["release"]): _answer(asked, entry) for entry in document["files"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RemoteProtocolError(f"{asked.name} gave no list of answers: {error!r}", remote=asked.name) from error
    silence = Answer(None, "", f"{asked.name} left it out of its answer")
    return {one.release_id: found.get(one.release_id, silence) for one in wanted}


def return_releases(told: Remote, *, site_id: uuid.UUID, returned: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> None:
    """These copies (artifact, release) stay. Raises as `ask_release` does; a repeat changes nothing there."""
    files = [{"id": str(artifact_id), "release": str(release_id)} for artifact_id, release_id in returned]
    _post(told, "/releases/returned", site_id, files)


def marked_copies(asked: Remote, *, site_id: uuid.UUID) -> Iterator[list[tuple[uuid.UUID, uuid.UUID]]]:
    """What it takes for going, by page (artifact, release). Raises as `ask_release` does."""
    after: str | None = str(uuid.UUID(int=0))
    while after is not None:
        document = _request(asked, "GET", f"/releases?site={site_id}&after={uuid.UUID(after)}", site_id, None)
        try:
            page = [(uuid.UUID(file["id"]), uuid.UUID(file["release"])) for file in document["files"]]
            following = document["next"]
            is_progress = following is None or uuid.UUID(following) > uuid.UUID(after)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RemoteProtocolError(f"{asked.name} gave no page of copies: {error!r}", remote=asked.name) from error
        if not is_progress:
            raise RemoteProtocolError(f"{asked.name} gives the same page again", remote=asked.name)
        yield page
        after = following


def _answer(asked: Remote, entry: Mapping[str, object]) -> Answer:
    if entry["granted"] is True:
        return Answer(is_granted=True)
    reason = str(entry["reason"])[:_REFUSED_REASON_LENGTH]
    detail = f"{asked.name}: {entry['copies']} verified copies would remain, {entry['demanded']} must"
    return Answer(False, reason, detail)


@functools.cache
def _pools() -> urllib3.PoolManager:
    return outbound.pool_manager()


def _post(asked: Remote, path: str, site_id: uuid.UUID, files: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
    return _request(asked, "POST", path, site_id, json.dumps({"site": str(site_id), "files": files}))


def _request(asked: Remote, method: str, path: str, site_id: uuid.UUID, body: str | None) -> Mapping[str, Any]:
    try:
        response = _pools().request(
            method,
            f"{asked.url}{path}",
            body=body,
            headers={
                **asked.credential.headers,
                "Content-Type": "application/json",
                "User-Agent": "storage-inventory",
            },
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(total=answer_seconds()),
            preload_content=False,
        )
        data = response.read(_MAX_ANSWER_BYTES)
        response.close()
    except HTTPError as error:
        raise RemoteUnavailableError(f"{asked.name} does not answer: {error}", remote=asked.name) from error
    if response.status != HTTPStatus.OK:
        is_refusal = response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        kind = RemoteRefusedError if is_refusal else RemoteUnavailableError
        raise kind(f"{asked.name} answered {response.status}", remote=asked.name)
    try:
        document: Mapping[str, Any] = json.loads(data)
        is_ours = document["site"] == str(site_id)
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteProtocolError(f"{asked.name} gave no answer of ours", remote=asked.name) from error
    if not is_ours:
        raise RemoteProtocolError(f"{asked.name} answered another site", remote=asked.name)
    return document
