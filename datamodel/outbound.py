"""To which addresses this service may open a connection; every outbound HTTP client is made here (SSRF).

A name is resolved once, all its addresses are judged, and the connection goes to one of those: another answer of the DNS a moment
later changes nothing. Redirects are followed by none of our clients.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from datamodel.errors import RemoteProtocolError, RemoteUnavailableError


def may_call(address: str, *, is_private: bool) -> bool:
    """Public addresses; with `is_private` those of one's own networks too. Never link-local ones, where clouds keep credentials."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return False
    return found.is_global or (is_private and (found.is_private or found.is_loopback or _is_shared(found)))


def _is_shared(found: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Neither public nor private, says the library: networks behind a carrier (RFC 6598)."""
    return found in ipaddress.ip_network("100.64.0.0/10")


def pool_manager(
    *, is_private: bool = True, num_pools: int = 10, maxsize: int = 1, certificate: str = ""
) -> urllib3.PoolManager:
    """A client: to peers that operators have named, or (not `is_private`) to public addresses only. It never retries by itself.

    `certificate` is a file with our own and its key, for those who ask for one.
    """
    manager = urllib3.PoolManager(
        num_pools=num_pools,
        maxsize=maxsize,
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=settings.INVENTORY_CA_FILE or None,
        cert_file=certificate or None,
    )
    plain, tls = (_PeerPool, _PeerTlsPool) if is_private else (_PublicPool, _PublicTlsPool)
    manager.pool_classes_by_scheme = {"http": plain, "https": tls}
    return manager


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch(
    pool: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    seconds: float,
    most_bytes: int,
    body: bytes | None = None,
) -> Answer:
    """One small answer of whatever status within that time; a redirect is an answer.

    Raises `RemoteUnavailableError` for none in time, and `RemoteProtocolError` for one that is too large.
    """
    deadline = time.monotonic() + seconds
    found = bytearray()
    try:
        with pool.request(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        ) as response:
            while chunk := response.read1(most_bytes):
                found += chunk
                if len(found) > most_bytes:
                    raise RemoteProtocolError(f"{url:.200} answers too much")
                if time.monotonic() > deadline:
                    raise RemoteUnavailableError(f"{url:.200} is too slow")
    except (HTTPError, OSError) as error:
        raise RemoteUnavailableError(f"{url:.200} cannot be reached: {error}") from error
    return Answer(response.status, response.headers, bytes(found))


class _PeerConnection(HTTPConnection):
    """Connects to what may be called only."""

    is_private = True

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        failure: NewConnectionError | None = None
        for address in self._addresses(name):
            self._dns_host = address
            try:
                return super()._new_conn()
            except NewConnectionError as error:
                failure = error
            finally:
                self._dns_host = name
        raise failure or NewConnectionError(self, f"{name} has no address")

    def _addresses(self, name: str) -> list[str]:
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(name, self, error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))) from error  # fmt: skip
        addresses = [str(info[4][0]) for info in found]
        if not all(may_call(address, is_private=self.is_private) for address in addresses):
            raise NewConnectionError(
                self, f"{name} has an address that is not called from here ({', '.join(addresses)})"
            )
        return addresses


class _PeerTlsConnection(_PeerConnection, HTTPSConnection):
    """With TLS; the certificate is for the name."""


class _PublicConnection(_PeerConnection):
    is_private = False


class _PublicTlsConnection(_PeerTlsConnection):
    is_private = False


class _PeerPool(HTTPConnectionPool):
    ConnectionCls = _PeerConnection


class _PeerTlsPool(HTTPSConnectionPool):
    ConnectionCls = _PeerTlsConnection


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicTlsPool(HTTPSConnectionPool):
    ConnectionCls = _PublicTlsConnection
