"""Negotiation: who is offered for a transfer, in which order, with which signed URLs. Nothing is written."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from datamodel.errors import ArtifactNotFoundError, RemoteUnavailableError
from datamodel.permissions import Caller, Grant, may
from datamodel.positions import Position
from datamodel.preauth import Methods
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from global_inventory.locate import freshness
from global_inventory.locate.queries import LocatedArtifact
from global_inventory.locate.signing import UrlSigner
from global_inventory.sites.queries import SiteTable, site_table_cache
from global_inventory.sites.rules import Direction, SiteState, obstacle, rank_sites


@dataclass(frozen=True, slots=True)
class Offer:
    """One place for a transfer: the site, its signed URL, and why it stands where it stands."""

    site: SiteState
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The answer to one negotiation, best offer first; `located` is None for a put of something new.

    Without offers `obstacles` says why each site that might have been offered was not.
    """

    uri: ArtifactUri
    direction: Direction
    located: LocatedArtifact | None
    offers: tuple[Offer, ...]
    expires_at: datetime
    obstacles: str

    @property
    def artifact(self) -> ArtifactRow:
        """The artifact of a negotiation that found one. Raises `ArtifactNotFoundError`."""
        if self.located is None:
            raise ArtifactNotFoundError(f"no artifact {self.uri}")
        return self.located.artifact


def negotiate_get(*, uri: ArtifactUri, caller: Caller, position: Position | None) -> Negotiated:
    """Readable holders of what the caller may be told of `uri`.

    Raises `ArtifactNotFoundError`, `PositionNotReachedError`.
    """
    located = freshness.find_artifact(uri, position=position, user=caller.name)
    signer = UrlSigner(methods=Methods.READ, user=_name_of(caller), now=datetime.now(UTC))
    return _offer(uri, Direction.GET, signer, located, located.holders, only_holders=True)


def negotiate_put(*, uri: ArtifactUri, caller: Caller, position: Position | None) -> Negotiated:
    """Every writable site, those that hold the artifact first; the tokens name what the global knows (house, decision 9)."""
    known = freshness.known_for_write(uri, position=position)
    signer = _write_signer(uri, caller, known.located)
    return _offer(uri, Direction.PUT, signer, known.located, known.holders, only_holders=False)


def negotiate_change(*, uri: ArtifactUri, caller: Caller, position: Position | None) -> Negotiated:
    """Writable holders of the artifact, for a DELETE or a change of metadata.

    Raises `ArtifactNotFoundError`, `PositionNotReachedError`.
    """
    located = freshness.find_artifact(uri, position=position, user=caller.name)
    return _offer(uri, Direction.PUT, _write_signer(uri, caller, located), located, located.holders, only_holders=True)


def require_offers(negotiated: Negotiated) -> Negotiated:
    """Raises `RemoteUnavailableError`, naming each site's obstacle, when nothing could be offered."""
    if not negotiated.offers:
        verb = "read from" if negotiated.direction is Direction.GET else "write to"
        raise RemoteUnavailableError(f"no site to {verb} for {negotiated.uri} now: {negotiated.obstacles}")
    return negotiated


def refuse_unoffered(negotiated: Negotiated, fitting: tuple[Offer, ...]) -> None:
    """Raises `ArtifactNotFoundError` when nothing fits: what OpenCADC clients expect of a pull (reference 4.3)."""
    if not fitting:
        reason = negotiated.obstacles or "no site fits the protocols asked for"
        raise ArtifactNotFoundError(f"no site to read from for {negotiated.uri} now: {reason}")


def _offer(
    uri: ArtifactUri,
    direction: Direction,
    signer: UrlSigner,
    located: LocatedArtifact | None,
    holders: frozenset[uuid.UUID],
    *,
    only_holders: bool,
) -> Negotiated:
    table = site_table_cache.get()
    candidates = [site for site in table.sites.values() if not only_holders or site.site_id in holders]
    ranked = rank_sites(candidates, uri.value, direction, chance=random.random, rules=table.rules, holders=holders)
    offers = tuple(Offer(place.site, signer.url(place.site, uri.value), place.reason) for place in ranked)
    unoffered = "" if offers else obstacles_of(table, candidates, holders if only_holders else frozenset(), direction)
    return Negotiated(uri, direction, located, offers, signer.expires_at, unoffered)


def obstacles_of(
    table: SiteTable, candidates: Iterable[SiteState], holders: frozenset[uuid.UUID], direction: Direction
) -> str:
    """Why none of the candidates is offered, and which holders are not among the known sites."""
    words = [f"{site.name}: {obstacle(site, direction) or 'offered'}" for site in candidates]
    words += [f"{holder}: no harvested site" for holder in sorted(holders, key=str) if holder not in table.sites]
    return "; ".join(words) or "no site is known here"


def _write_signer(uri: ArtifactUri, caller: Caller, located: LocatedArtifact | None) -> UrlSigner:
    """For no more than the caller may do itself."""
    methods = Methods.of(
        read=may(caller, Grant.READ, uri), write=may(caller, Grant.WRITE, uri), delete=may(caller, Grant.DELETE, uri)
    )
    known = (located.artifact.id, freshness.known_at(located)) if located is not None else None
    return UrlSigner(methods=methods, user=_name_of(caller), now=datetime.now(UTC), known=known)


def _name_of(caller: Caller) -> str | None:
    return None if caller.is_anonymous else caller.name
