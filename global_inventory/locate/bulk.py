"""Negotiation of up to ten thousand URIs in one call: one look-up, ranking once per group of holders, one signature per copy.

JSON is made of pieces: canonical URIs, ids and checksums hold nothing that needs an escape.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db import connection

from datamodel.errors import InvalidUriError, PositionNotReachedError
from datamodel.permissions import Caller, Grant, reach
from datamodel.positions import Position
from datamodel.preauth import Methods
from datamodel.uris import ArtifactUri
from datamodel.wire import time_text
from global_inventory.locate import queries
from global_inventory.locate.freshness import await_position
from global_inventory.locate.operations import obstacles_of
from global_inventory.locate.queries import BriefRow
from global_inventory.locate.signing import UrlSigner
from global_inventory.sites import rules
from global_inventory.sites.queries import site_table_cache
from global_inventory.sites.rules import Direction, NamespaceRule, Ranked, Tier

MAX_URIS = 10_000


def locate_many(*, uris: Sequence[str], caller: Caller, position: Position | None) -> str:
    """The JSON answer, one result per uri in the order asked; an unknown or malformed uri gets an error entry. What the caller may not read is unknown to it.

    Only the tables are asked: unknown URIs are not looked for at the sites. Raises `PositionNotReachedError`.
    """
    if position is not None and not await_position(position).is_passed:
        raise PositionNotReachedError("the news up to this x-inventory-position have not arrived here yet")
    canonical = [_canonical(text) for text in uris]
    readable = reach(caller, Grant.READ)
    rows = queries.brief_rows([uri for uri in canonical if isinstance(uri, str) and uri in readable])
    plan = _Plan(caller)
    connection.close()
    results = ",".join(
        plan.result(text, uri, rows.get(uri)) if isinstance(uri, str) else _error_entry(text, uri.code, uri.detail)
        for text, uri in zip(uris, canonical, strict=True)
    )
    expires = time_text(plan.signer.expires_at)
    return f'{{"direction":"get","expiresAt":"{expires}","results":[{results}]}}'


def _canonical(text: str) -> str | InvalidUriError:
    try:
        return ArtifactUri.parse(text).value
    except InvalidUriError as error:
        return error


class _Plan:
    """What the URIs of one call share: the sites, the signer, and the ranking of each group of holders."""

    def __init__(self, caller: Caller) -> None:
        self.table = site_table_cache.get()
        user = None if caller.is_anonymous else caller.name
        self.signer = UrlSigner(methods=Methods.READ, user=user, now=datetime.now(UTC))
        self._tiers: dict[tuple[str, tuple[NamespaceRule, ...]], tuple[Tier, ...]] = {}
        # By identity: the tiers above keep each place alive, and hashing its fields would cost more than the text.
        self._words: dict[int, str] = {}

    def result(self, asked: str, uri: str, row: BriefRow | None) -> str:
        """The JSON of one result."""
        if row is None:
            return _error_entry(asked, "artifact_not_found", f"no artifact {uri}")
        if row[5] is None:
            return _error_entry(asked, "artifact_not_found", f"{uri} is known, but no site holds a copy of it now")
        ranked = rules.order_of(self._tiers_for(uri, row[5]), random.random)
        if not ranked:
            holders = frozenset(map(uuid.UUID, row[5].split(",")))
            held = [site for site in self.table.sites.values() if site.site_id in holders]
            reasons = obstacles_of(self.table, held, holders, Direction.GET)
            return _error_entry(asked, "remote_unavailable", f"no site to read from for {uri} now: {reasons}")
        urls = ",".join([f'{{"url":{json.dumps(self.signer.url(r.site, uri))},{self._words_of(r)}}}' for r in ranked])
        requested = "" if asked == uri else f'"requested":{json.dumps(asked)},'
        sha256 = f'"{row[4]}"' if row[4] is not None else "null"
        return (
            f'{{"uri":"{uri}",{requested}"id":"{row[1]}","contentChecksum":"{row[2]}","contentSha256":{sha256},'
            f'"contentLength":{row[3]},"urls":[{urls}]}}'
        )

    def _tiers_for(self, uri: str, holders: str) -> tuple[Tier, ...]:
        matching = rules.matching_rules(self.table.rules, uri, Direction.GET) if self.table.rules else ()
        key = (holders, matching)
        tiers = self._tiers.get(key)
        if tiers is None:
            sites = [self.table.sites.get(uuid.UUID(holder)) for holder in holders.split(",")]
            known = [site for site in sites if site is not None]
            tiers = self._tiers[key] = rules.tiers_of(known, Direction.GET, matching=matching)
        return tiers

    def _words_of(self, ranked: Ranked) -> str:
        words = self._words.get(id(ranked))
        if words is None:
            words = f'"site":{json.dumps(ranked.site.name)},"reason":{json.dumps(ranked.reason)}'
            self._words[id(ranked)] = words
        return words


def _error_entry(asked: str, code: str, detail: str) -> str:
    return json.dumps({"uri": asked, "urls": [], "error": {"code": code, "detail": detail}}, separators=(",", ":"))
