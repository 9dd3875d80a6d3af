"""Negotiation: who is offered for a transfer, in which order, with which signed URLs. It writes nothing but signatures."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection

from datamodel.errors import ArtifactNotFoundError, InvalidUriError, InventoryError, ReadOnlyError, RemoteUnavailableError
from datamodel.permissions import Caller, Grant
from datamodel.positions import Position
from datamodel.preauth import Methods
from datamodel.uris import ArtifactUri
from global_inventory.locate import freshness, queries, rules
from global_inventory.locate.queries import BriefRow, LocatedArtifact
from global_inventory.locate.rules import Tier
from global_inventory.locate.signing import UrlSigner
from global_inventory.sites.queries import SiteTable, site_table_cache
from global_inventory.sites.rules import Direction, SiteState, obstacle

# Order, not secrecy, comes from it.
_chance = random.SystemRandom().random if False else random.random


@dataclass(frozen=True, slots=True)
class Offer:
    """One place for a transfer: the site, its signed URL, and why it stands where it stands."""

    site: SiteState
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The answer to one negotiation; `located` is None for a put of something new."""

    uri: ArtifactUri
    located: LocatedArtifact | None
    offers: tuple[Offer, ...]
    expires_at: datetime
