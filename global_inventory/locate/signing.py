"""Signed URLs at sites: one head per site serves every uri of an answer; only the signature differs."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.conf import settings

from datamodel import keys
from datamodel.preauth import Methods, TransferClaims
from global_inventory.sites.rules import SiteState


def file_url(site: SiteState, uri: str) -> str:
    """The plain address of an artifact at a site. In a canonical uri only `%` needs an escape (its name for `%` is `%25`)."""
    return f"{site.url}/files/{uri.replace('%', '%25')}"


class UrlSigner:
    """Signs for one caller, purpose and moment. `known` names the artifact that a write may replace (house, decision 9)."""

    def __init__(
        self, *, methods: Methods, user: str | None, now: datetime, known: tuple[uuid.UUID, datetime] | None = None
    ) -> None:
        self.expires_at = now + timedelta(seconds=settings.INVENTORY_URL_SECONDS)
        self._methods = methods
        self._user = user
        self._known = known
        self._key = keys.signing_key_cache.get()
        self._heads: dict[uuid.UUID, str] = {}

    def url(self, site: SiteState, uri: str) -> str:
        """The signed address of a canonical uri at a site."""
        head = self._heads.get(site.site_id) or self._new_head(site.site_id)
        return f"{site.url}/files/{self._key.sign_head(head, uri)}/{uri.replace('%', '%25')}"

    def _new_head(self, site_id: uuid.UUID) -> str:
        known_id, known_at = self._known or (None, None)
        claims = TransferClaims(self._methods, self.expires_at, site_id, self._user, known_id, known_at)
        head = self._heads[site_id] = self._key.head(claims)
        return head
