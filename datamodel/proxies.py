"""Reverse proxies of ours: whose word about a caller counts, and from which address a request comes."""

from __future__ import annotations

import functools
import ipaddress

from django.conf import settings
from django.http import HttpRequest

from datamodel.errors import NotConfiguredError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# A proxy that comes by a unix socket has no address: the file's permissions say who may.
SOCKET = "unix"


@functools.lru_cache(maxsize=4)
def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """`INVENTORY_TRUSTED_PROXIES` but for `unix`. Raises `NotConfiguredError`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts if text != SOCKET)
    except ValueError as error:
        raise NotConfiguredError(f"INVENTORY_TRUSTED_PROXIES: {error}") from error


def is_from_proxy(request: HttpRequest) -> bool:
    """Whether a proxy of ours has sent it: what it says about the caller is believed."""
    return _is_trusted(request.META.get("REMOTE_ADDR", ""))


def client_address(request: HttpRequest) -> str:
    """Whence a request comes: of `X-Forwarded-For`, as far as proxies of ours have written it, the last who is none of them.

    "" when nobody knows: a proxy by a unix socket that does not say.
    """
    address: str = request.META.get("REMOTE_ADDR", "")
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")]
    while _is_trusted(address) and hops:
        hop = _address(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def _is_trusted(address: str) -> bool:
    trusted = tuple(settings.INVENTORY_TRUSTED_PROXIES)
    if not trusted:
        return False
    if not address:
        return SOCKET in trusted
    found = _address(address)
    if found is None:
        return False
    return any(ipaddress.ip_address(found) in network for network in parse_networks(trusted))


def _address(text: str) -> str | None:
    """In one form: an IPv4 address that comes over an IPv6 socket is one of IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
