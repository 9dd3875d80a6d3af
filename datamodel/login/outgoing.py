"""How django-allauth calls the provider: it speaks `requests`, and what is behind that is our own client."""

from __future__ import annotations

import io
from typing import Any, cast

import requests
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from datamodel import issuers, outbound
from datamodel.errors import InventoryError


def provider_session() -> requests.Session:
    """Calls as those for an issuer's keys: where addresses are allowed, with TLS, one small answer in time, no redirect."""
    session = requests.Session()
    session.mount("https://", _Outgoing())
    session.mount("http://", _Outgoing())
    session.max_redirects = 0
    # Neither proxies nor credentials of the machine's environment.
    session.trust_env = False
    return session


class _Outgoing(HTTPAdapter):
    """Of what `requests` would say about proxies, certificates and time nothing is asked."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        del arguments, options
        url, body = str(request.url), request.body or b""
        try:
            issuers.check_scheme(url)
            answer = outbound.fetch(
                outbound.pool_manager(is_private=settings.INVENTORY_OIDC_PRIVATE),
                str(request.method),
                url,
                headers={name: str(value) for name, value in request.headers.items()},
                seconds=issuers.FETCH_SECONDS,
                most_bytes=issuers.MOST_BYTES,
                body=body.encode() if isinstance(body, str) else cast("bytes", body),
            )
        except InventoryError as error:
            raise requests.ConnectionError(error.detail, request=request) from error
        # As it was read: nothing is coded any more.
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-encoding"}
        raw = HTTPResponse(io.BytesIO(answer.body), headers, answer.status, preload_content=False)
        found: requests.Response = self.build_response(request, raw)
        return found
