"""Asking a permission service over HTTP: one question, one answer, within one time limit; redirects are not followed."""

from __future__ import annotations

import functools
import time

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from datamodel import outbound
from datamodel.errors import RemoteProtocolError, RemoteUnavailableError
from datamodel.permission_service.rules import Operation, Permission, parse_permission

_MOST_BYTES = 1024 * 1024
# It knows nothing of this uri, or takes it for none.
_NOTHING = frozenset({400, 404})


def ask(url: str, operation: Operation, uri: str) -> Permission:
    """Raises `RemoteUnavailableError` if there is no answer in time, `RemoteProtocolError` for one that is of no use."""
    deadline = time.monotonic() + settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS
    timeout = urllib3.Timeout(total=settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS)
    try:
        with _pool(settings.INVENTORY_CA_FILE, settings.INVENTORY_PERMISSION_CERTIFICATE).request(
            "GET",
            url,
            fields={"OP": operation.value, "ID": uri},
            headers={"Accept": "text/xml", "User-Agent": "storage-inventory"},
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        ) as response:
            body = b""
            while chunk := response.read1(_MOST_BYTES):
                body += chunk
                if time.monotonic() > deadline:
                    raise RemoteUnavailableError("it is too slow")
                if len(body) > _MOST_BYTES:
                    raise RemoteProtocolError("its answer is too large")
    except (HTTPError, OSError) as error:
        raise RemoteUnavailableError(f"{error}") from error
    if response.status in _NOTHING:
        return Permission()
    if response.status != 200:
        raise RemoteProtocolError(f"it answered {response.status}")
    try:
        return parse_permission(body, operation, uri)
    except ValueError as error:
        raise RemoteProtocolError(f"its answer is {error}") from error


@functools.lru_cache(maxsize=2)
def _pool(ca_file: str, certificate: str) -> urllib3.PoolManager:
    del ca_file  # with another one there is another pool
    return outbound.pool_manager(maxsize=8, certificate=certificate)
