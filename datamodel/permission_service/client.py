"""Asking a permission service over HTTP: one question, one answer, within one time limit; redirects are not followed."""

from __future__ import annotations

import functools
from urllib.parse import urlencode

import urllib3
from django.conf import settings

from datamodel import outbound
from datamodel.errors import RemoteProtocolError
from datamodel.permission_service.rules import Operation, Permission, parse_permission

_MOST_BYTES = 1024 * 1024
# It knows nothing of this uri, or takes it for none.
_NOTHING = frozenset({400, 404})


def ask(url: str, operation: Operation, uri: str) -> Permission:
    """Raises `RemoteUnavailableError` if there is no answer in time, `RemoteProtocolError` for one that is of no use."""
    answer = outbound.fetch(
        _pool(settings.INVENTORY_CA_FILE, settings.INVENTORY_PERMISSION_CERTIFICATE),
        "GET",
        f"{url}?{urlencode({'OP': operation.value, 'ID': uri})}",
        headers={"Accept": "text/xml", "User-Agent": "storage-inventory"},
        seconds=settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS,
        most_bytes=_MOST_BYTES,
    )
    if answer.status in _NOTHING:
        return Permission()
    if answer.status != 200:
        raise RemoteProtocolError(f"it answered {answer.status}")
    try:
        return parse_permission(answer.body, operation, uri)
    except ValueError as error:
        raise RemoteProtocolError(f"its answer is {error}") from error


@functools.lru_cache(maxsize=2)
def _pool(ca_file: str, certificate: str) -> urllib3.PoolManager:
    del ca_file  # with another one there is another pool
    return outbound.pool_manager(maxsize=8, certificate=certificate)
