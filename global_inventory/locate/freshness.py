"""Read your writes: wait for the harvest to pass a position, and ask the sites for what is not known here yet."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import connection

from datamodel.errors import ArtifactNotFoundError, PositionNotReachedError, RemoteError
from datamodel.notify import news
from datamodel.positions import Position
from datamodel.preauth import Methods
from datamodel.queries import is_tombstoned
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from global_inventory.locate import queries
from global_inventory.locate.queries import LocatedArtifact, Passage
from global_inventory.locate.signing import UrlSigner
from global_inventory.sites import client
from global_inventory.sites.queries import site_table_cache
from global_inventory.sites.rules import Direction, SiteState, obstacle

# The doorbell may be lost while its listener reconnects; the table is asked this often without it.
_LOOK_AGAIN_SECONDS = 0.25
_MISS_SECONDS = 1.5
# Whoever negotiated a write looks for its result soon: a miss of that uri is not remembered meanwhile.
_EXPECTED_SECONDS = 60.0
_URIS_KEPT = 10_000
# HEAD's Last-Modified has whole seconds: what it names is not later than the next one.
_HEADER_RESOLUTION = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class KnownForWrite:
    """The artifact that a write may replace, if one is known, and the sites to be offered first."""

    located: LocatedArtifact | None
    holders: frozenset[uuid.UUID]


def await_position(position: Position) -> Passage:
    """Wait at most INVENTORY_POSITION_WAIT_SECONDS until the harvest has passed `position`; no connection is held meanwhile."""
    deadline = time.monotonic() + settings.INVENTORY_POSITION_WAIT_SECONDS
    while True:
        seen = news.count()
        passage = queries.passage(position)
        remaining = deadline - time.monotonic()
        if passage.is_passed or remaining <= 0:
            return passage
        connection.close()
        news.wait(seen, min(remaining, _LOOK_AGAIN_SECONDS))


def find_artifact(uri: ArtifactUri, *, position: Position | None, user: str) -> LocatedArtifact:
    """What a reader may be told of `uri`: never older than `position`, and found even when only a site knows it yet.

    Raises `ArtifactNotFoundError`, `PositionNotReachedError`.
    """
    if position is not None:
        passage = await_position(position)
        if not passage.is_passed:
            return _ask_writer(uri, passage.site_id, user)
    located = queries.located_artifact(uri.value)
    if located is not None:
        if located.holders:
            return located
        raise ArtifactNotFoundError(f"{uri} is known, but no site holds a copy of it now")
    return _ask_readable(uri, user)


def known_for_write(uri: ArtifactUri, *, position: Position | None) -> KnownForWrite:
    """What is known of `uri` before it is written; the site of a position that was not passed in time counts as its holder."""
    passage = await_position(position) if position is not None else None
    questions.expect(uri)
    located = queries.located_artifact(uri.value)
    if passage is not None and not passage.is_passed and passage.site_id is not None:
        return KnownForWrite(located, frozenset({passage.site_id}))
    return KnownForWrite(located, located.holders if located is not None else frozenset())


def known_at(located: LocatedArtifact) -> datetime:
    """A time that the content is not later than, for the token of a write."""
    when = located.artifact.content_last_modified
    return when if located.asked_site is None else when + _HEADER_RESOLUTION


def _ask_writer(uri: ArtifactUri, site_id: uuid.UUID | None, user: str) -> LocatedArtifact:
    site = site_table_cache.get().sites.get(site_id) if site_id is not None else None
    if site is None:
        raise PositionNotReachedError("no site with the inventory id of this x-inventory-position is harvested here")
    connection.close()
    try:
        found = _ask(site, uri, user)
    except RemoteError as error:
        raise PositionNotReachedError(
            f"the news of {site.name} have not arrived here, and it cannot be asked now: {error.detail}"
        ) from error
    if found is None or is_tombstoned(found.id):
        raise ArtifactNotFoundError(f"no artifact {uri}, as {site.name} says itself")
    return LocatedArtifact(found, frozenset({site.site_id}), site.site_id)


def _ask_readable(uri: ArtifactUri, user: str) -> LocatedArtifact:
    sites = {
        site_id: site for site_id, site in site_table_cache.get().sites.items() if obstacle(site, Direction.GET) is None
    }
    found = questions.ask(uri, sites, user)
    if found is None:
        raise ArtifactNotFoundError(f"no artifact {uri}")
    return found


def _ask(site: SiteState, uri: ArtifactUri, user: str) -> ArtifactRow | None:
    signed = UrlSigner(methods=Methods.READ, user=user, now=datetime.now(UTC)).url(site, uri.value)
    return client.ask_site(signed, uri, site=site.url, seconds=settings.INVENTORY_ASK_SECONDS)


def _answer_of(site: SiteState, signed: str, uri: ArtifactUri) -> ArtifactRow | None:
    """None also when the site fails: then another may have it."""
    try:
        return client.ask_site(signed, uri, site=site.url, seconds=settings.INVENTORY_ASK_SECONDS)
    except RemoteError:
        return None


def _ask_all(uri: ArtifactUri, sites: Mapping[uuid.UUID, SiteState], user: str) -> LocatedArtifact | None:
    """The first site that has it, and whose id for it was not deleted for ever; all are asked at once."""
    signer = UrlSigner(methods=Methods.READ, user=user, now=datetime.now(UTC))
    calls = {i: partial(_answer_of, site, signer.url(site, uri.value), uri) for i, site in sites.items()}
    connection.close()
    for site_id, found in client.concurrently(calls, seconds=settings.INVENTORY_ASK_SECONDS):
        if found is not None and not is_tombstoned(found.id):
            return LocatedArtifact(found, frozenset({site_id}), site_id)
    return None


class Questions:
    """One question per uri at a time, and none for what was missing a moment ago: misses do not multiply."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: dict[str, Future[LocatedArtifact | None]] = {}
        self._missed_at: dict[str, float] = {}
        self._expected_at: dict[str, float] = {}

    def ask(self, uri: ArtifactUri, sites: Mapping[uuid.UUID, SiteState], user: str) -> LocatedArtifact | None:
        """The artifact from whichever site has it, or None within INVENTORY_ASK_SECONDS."""
        with self._lock:
            if _is_recent(self._missed_at, uri.value, _MISS_SECONDS):
                return None
            running = self._asking.get(uri.value)
            mine: Future[LocatedArtifact | None] = Future()
            if running is None:
                self._asking[uri.value] = mine
        if running is not None:
            return _result_of(running)
        try:
            found = _ask_all(uri, sites, user)
            mine.set_result(found)
        finally:
            self._finish(uri.value, mine)
        return found

    def expect(self, uri: ArtifactUri) -> None:
        """A write of `uri` was negotiated: what was missing may be there at any moment."""
        with self._lock:
            self._missed_at.pop(uri.value, None)
            _remember(self._expected_at, uri.value)

    def clear(self) -> None:
        """Forget what was missing and what is expected."""
        with self._lock:
            self._missed_at.clear()
            self._expected_at.clear()

    def _finish(self, uri: str, mine: Future[LocatedArtifact | None]) -> None:
        with self._lock:
            del self._asking[uri]
            if not mine.done():
                mine.set_result(None)
            elif mine.result() is None and not _is_recent(self._expected_at, uri, _EXPECTED_SECONDS):
                _remember(self._missed_at, uri)


def _is_recent(times: dict[str, float], uri: str, seconds: float) -> bool:
    return time.monotonic() - times.get(uri, float("-inf")) < seconds


def _remember(times: dict[str, float], uri: str) -> None:
    if len(times) >= _URIS_KEPT:
        times.clear()
    times[uri] = time.monotonic()


def _result_of(running: Future[LocatedArtifact | None]) -> LocatedArtifact | None:
    connection.close()
    try:
        return running.result(timeout=settings.INVENTORY_ASK_SECONDS + 1)
    except TimeoutError:
        return None


questions = Questions()
