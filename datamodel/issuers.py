"""Issuers of bearer JWTs: which are trusted, their keys (fetched, remembered, refreshed), and the check of a signature.

A token is believed only with an algorithm of the list and a key that its issuer publishes for signing. Keys are fetched anew when they
are old and when a token names an unknown one, but not more often than every ten seconds: made-up names cost nobody anything.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, KeySet

from datamodel import outbound
from datamodel.errors import NotAuthenticatedError, NotConfiguredError, RemoteProtocolError, RemoteUnavailableError
from datamodel.permissions import Caller, known
from datamodel.scopes import Bearer, Trust, UnbelievableClaimsError, judge
from datamodel.uris import Namespace

logger = logging.getLogger(__name__)

# Signatures with public keys only: neither `none` nor a shared secret is ever a signature of an issuer.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
DEFAULT_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
_KEY_KINDS = frozenset({"RSA", "EC", "OKP"})
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_RETRY_SECONDS = 10.0
# Keys of an issuer that cannot be reached are believed for so long.
_STALE_SECONDS = 86_400.0
FETCH_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
MOST_BYTES = 512 * 1024
_FIELDS = {"issuer", "name", "audience", "algorithms", "user", "groups", "prefix", "base"}


def parse_issuers(text: str) -> dict[str, Trust]:
    """`INVENTORY_OIDC_ISSUERS` by URL. Raises `NotConfiguredError` naming what is wrong."""
    try:
        entries = json.loads(text)
        found = [_trust(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotConfiguredError(f"INVENTORY_OIDC_ISSUERS is not a JSON list of issuers: {error}") from error
    for names in ([trust.url for trust in found], [trust.name for trust in found], [trust.prefix for trust in found]):
        if len(set(names)) != len(names):
            raise NotConfiguredError("INVENTORY_OIDC_ISSUERS: two issuers have the same issuer, name or prefix")
    return {trust.url: trust for trust in found}


def _trust(entry: Mapping[str, Any]) -> Trust:
    if unknown := sorted(set(entry) - _FIELDS):
        raise NotConfiguredError(
            f"INVENTORY_OIDC_ISSUERS: {unknown[0]} is not known; there are {', '.join(sorted(_FIELDS))}"
        )
    audience, name = entry["audience"], entry["name"]
    audiences = frozenset([audience] if isinstance(audience, str) else audience)
    algorithms = tuple(entry.get("algorithms", DEFAULT_ALGORITHMS))
    if not audiences or not name or wrong_algorithms(algorithms):
        raise NotConfiguredError(
            f"INVENTORY_OIDC_ISSUERS: {entry['issuer']} needs a name, an audience, and algorithms of {', '.join(ALGORITHMS)}"
        )
    base = entry.get("base", "")
    return Trust(
        url=entry["issuer"],
        name=name,
        audiences=audiences,
        algorithms=algorithms,
        user_claim=entry.get("user", "sub"),
        groups_claim=entry.get("groups", "groups"),
        prefix=entry.get("prefix", f"{name}:"),
        base=Namespace.parse(base).value if base else "",
    )


def wrong_algorithms(algorithms: tuple[str, ...]) -> bool:
    """Whether there is one that is none of ours, or none at all."""
    return not algorithms or bool(set(algorithms) - set(ALGORITHMS))


@functools.lru_cache(maxsize=4)
def _issuers(text: str) -> dict[str, IssuerKeys]:
    return {url: IssuerKeys(trust) for url, trust in parse_issuers(text).items()}


def trusted_issuers() -> dict[str, IssuerKeys]:
    """The configured issuers with what this process remembers of their keys."""
    return _issuers(settings.INVENTORY_OIDC_ISSUERS)


def forget() -> None:
    """Keys are fetched anew."""
    _issuers.cache_clear()


def is_jwt(token: str) -> bool:
    """Whether a bearer token has the form of a signed JWT; ours have no dots."""
    return token.count(".") == 2 and token.startswith("ey") and settings.INVENTORY_OIDC_ISSUERS != "[]"


def caller_of_jwt(token: str) -> Caller:
    """Raises `NotAuthenticatedError` with the reason, `RemoteUnavailableError` while the issuer's keys cannot be had."""
    _, claims = _parts(token)
    issuer = trusted_issuers().get(str(claims.get("iss")))
    if issuer is None:
        raise NotAuthenticatedError("the token's issuer is not trusted here")
    _, bearer = _believed(token, issuer)
    return Caller(bearer.name, "oidc", frozenset(), principals=known(bearer.principals), limits=bearer.limits)


def verified_claims(token: str, issuer: IssuerKeys) -> Mapping[str, object]:
    """What a token says that this issuer has made for us. Raises as `caller_of_jwt` does."""
    return _believed(token, issuer)[0]


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        header, claims = (_unverified(part) for part in token.split(".")[:2])
    except (ValueError, RecursionError):
        raise NotAuthenticatedError("the token is not a JWT") from None
    return header, claims


def _believed(token: str, issuer: IssuerKeys) -> tuple[Mapping[str, object], Bearer]:
    header, _ = _parts(token)
    if header.get("alg") not in issuer.trust.algorithms:
        raise NotAuthenticatedError("the token's algorithm is not accepted")
    if str(header.get("typ", "jwt")).lower() not in _TYPES:
        raise NotAuthenticatedError("the token is not meant for access (typ)")
    keys = issuer.keys_for(header.get("kid"), str(header["alg"]))
    try:
        verified = jwt.decode(token, keys, algorithms=list(issuer.trust.algorithms)).claims
        leeway = settings.INVENTORY_OIDC_LEEWAY_SECONDS
        bearer = judge(verified, issuer.trust, now=time.time(), leeway=leeway)
    except (JoseError, ValueError) as error:
        reason = str(error) if isinstance(error, UnbelievableClaimsError) else "the token's signature is not good"
        raise NotAuthenticatedError(reason) from None
    return verified, bearer


def _unverified(part: str) -> dict[str, Any]:
    found = json.loads(_decoded(part))
    return found if isinstance(found, dict) else {}


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


class IssuerKeys:
    """The keys of one issuer, as last fetched."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._lock = threading.Lock()
        self._keys: list[dict[str, Any]] = []
        self._fetched_at = self._tried_at = float("-inf")

    def keys_for(self, key_id: object, algorithm: str) -> KeySet:
        """The key that a token names, or without a name the only one. Raises `NotAuthenticatedError`, `RemoteUnavailableError`."""
        found = self._matching(key_id, algorithm)
        age = time.monotonic() - self._fetched_at
        if len(found) != 1 or age > settings.INVENTORY_OIDC_KEYS_SECONDS:
            self._refresh(patience=_PATIENCE_SECONDS if len(found) != 1 else 0.0)
            found = self._matching(key_id, algorithm)
        if time.monotonic() - self._fetched_at > _STALE_SECONDS:
            raise RemoteUnavailableError(f"the keys of the issuer {self.trust.name} cannot be fetched now")
        if len(found) != 1:
            raise NotAuthenticatedError("the token's key is not one that its issuer publishes")
        return KeySet.import_key_set({"keys": found})

    def _matching(self, key_id: object, algorithm: str) -> list[dict[str, Any]]:
        return [
            key
            for key in self._keys
            if (key_id is None or key.get("kid") == key_id) and key.get("alg", algorithm) == algorithm
        ]

    def _refresh(self, *, patience: float) -> None:
        """Fetch, unless somebody just did. Whoever has a key already does not wait for another's fetch."""
        if not self._lock.acquire(timeout=patience) if patience else not self._lock.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._tried_at < _RETRY_SECONDS:
                return
            self._tried_at = time.monotonic()
            self._keys = _published(self.trust.url)
            self._fetched_at = time.monotonic()
        except (RemoteUnavailableError, RemoteProtocolError) as error:
            facts = {"issuer": self.trust.url, "result": "failed", "reason": error.detail}
            logger.warning("END event=fetch_issuer_keys", extra={"facts": facts})
        finally:
            self._lock.release()


def _published(issuer: str) -> list[dict[str, Any]]:
    """The signing keys by discovery (OpenID Connect Discovery 1.0, 4). Raises `RemoteUnavailableError`, `RemoteProtocolError`."""
    discovered = _fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if discovered.get("issuer") != issuer:
        raise RemoteProtocolError(f"{issuer} calls itself {discovered.get('issuer')!r:.200}")
    keys = _fetch_json(str(discovered.get("jwks_uri"))).get("keys")
    if not isinstance(keys, list):
        raise RemoteProtocolError(f"{issuer} publishes no key set")
    return [key for key in keys if isinstance(key, dict) and _is_for_signing(key)]


def _is_for_signing(key: dict[str, Any]) -> bool:
    if key.get("kty") not in _KEY_KINDS or key.get("use", "sig") != "sig" or "d" in key:
        return False
    try:
        JWKRegistry.import_key(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True


def check_scheme(url: str) -> None:
    """Raises `RemoteProtocolError` for an address without TLS, unless the setting allows it."""
    parts = urlsplit(url)
    if parts.scheme not in ({"https", "http"} if settings.INVENTORY_OIDC_PRIVATE else {"https"}) or not parts.hostname:
        raise RemoteProtocolError(f"{url:.200} is not an https address")


def _fetch_json(url: str) -> dict[str, Any]:
    """A small document within a few seconds; private addresses only where the setting allows them."""
    check_scheme(url)
    pool = outbound.pool_manager(is_private=settings.INVENTORY_OIDC_PRIVATE)
    headers = {"Accept": "application/json", "User-Agent": "storage-inventory"}
    answer = outbound.fetch(pool, "GET", url, headers=headers, seconds=FETCH_SECONDS, most_bytes=MOST_BYTES)
    if answer.status != 200:
        raise RemoteUnavailableError(f"{url:.200} answered {answer.status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"{url:.200} is not JSON") from error
    if not isinstance(found, dict):
        raise RemoteProtocolError(f"{url:.200} is not a JSON object")
    return found
