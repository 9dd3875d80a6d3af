"""The configured identity provider, as django-allauth finds it; its ID tokens are verified as every issuer's are."""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from allauth.socialaccount.models import SocialApp, SocialLogin, SocialToken
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from datamodel import issuers
from datamodel.errors import InventoryError
from datamodel.issuers import IssuerKeys
from datamodel.login.rules import SignedIn, check_party, merged, person_of
from datamodel.scopes import Trust

PROVIDER = "inventory_login"
CALLBACK_NAME = "admin:oidc-callback"
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


def provider_id() -> str:
    """Of one issuer: another that is configured later has other people by the same subjects."""
    return hashlib.sha256(settings.INVENTORY_LOGIN_ISSUER.encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=2)
def _keys_of(url: str, client: str) -> IssuerKeys:
    return IssuerKeys(
        Trust(url=url, name="login", audiences=frozenset({client}), algorithms=issuers.DEFAULT_ALGORITHMS)
    )


class LoginAdapter(OpenIDConnectOAuth2Adapter):
    """One exchange with the provider; whatever goes wrong is an `OAuth2Error`."""

    def __init__(self, request: HttpRequest, identity: str = "") -> None:
        super().__init__(request, identity or provider_id())

    @property
    def openid_config(self) -> Mapping[str, Any]:
        try:
            found = super().openid_config
        except AttributeError as error:
            raise OAuth2Error("the provider's description is no JSON object") from error
        if not isinstance(found, dict) or found.get("issuer") != settings.INVENTORY_LOGIN_ISSUER:
            raise OAuth2Error("the provider's description is another issuer's")
        try:
            for name in (*_NEEDED, "userinfo_endpoint"):
                if name in _NEEDED or found.get(name) is not None:
                    issuers.check_scheme(str(found.get(name)))
        except (InventoryError, ValueError) as error:
            raise OAuth2Error(f"the provider's {name}: {error}") from error
        return found

    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        del request, app
        origin = "/".join(settings.INVENTORY_PUBLIC_URL.split("/")[:3])
        return f"{origin}{reverse(CALLBACK_NAME)}"

    def get_access_token_data(
        self, request: HttpRequest, app: SocialApp, client: Any, pkce_code_verifier: str | None = None
    ) -> Any:
        """What the provider answers, whole or not, has secrets in it: it is in no error."""
        try:
            return super().get_access_token_data(request, app, client, pkce_code_verifier)
        except OAuth2Error:
            raise OAuth2Error("the provider gave no access token") from None

    def parse_token(self, data: Mapping[str, Any]) -> SocialToken:
        """Used once, for `userinfo`, and never kept: until when it is good does not matter."""
        return SocialToken(token=str(data["access_token"]))

    def complete_login(
        self, request: HttpRequest, app: SocialApp, token: SocialToken, **kwargs: Any
    ) -> SocialLogin:  # as allauth calls it
        del app
        answer = kwargs["response"]
        try:
            keys = _keys_of(settings.INVENTORY_LOGIN_ISSUER, settings.INVENTORY_LOGIN_CLIENT_ID)
            claims = issuers.verified_claims(str(answer.get("id_token", "")), keys)
            check_party(claims, settings.INVENTORY_LOGIN_CLIENT_ID)
            nonce = claims.get("nonce")
            if self.openid_config.get("userinfo_endpoint"):
                claims = merged(claims, self._fetch_user_info(token.token))
            person = person_of(
                claims,
                user_claim=settings.INVENTORY_LOGIN_USER_CLAIM,
                groups_claim=settings.INVENTORY_LOGIN_GROUPS_CLAIM,
                prefix=settings.INVENTORY_LOGIN_PREFIX,
                admitted=settings.INVENTORY_LOGIN_GROUPS,
            )
        except InventoryError as error:
            raise OAuth2Error(error.detail) from error
        except ValueError as error:
            raise OAuth2Error(str(error)) from error
        request.signed_in = SignedIn(person, nonce)  # type: ignore[attr-defined]  # our own: read by `adapters.py`
        provider: LoginProvider = self.get_provider()  # type: ignore[no-untyped-call]
        login: SocialLogin = provider.sociallogin_from_response(request, {"sub": person.subject})
        return login


class LoginProvider(OpenIDConnectProvider):
    """Of what a provider says we keep the subject alone."""

    id = PROVIDER
    name = "OpenID Connect"
    oauth2_adapter_class: type[OpenIDConnectOAuth2Adapter] = LoginAdapter

    def redirect(
        self, request: HttpRequest, process: str, next_url: str | None = None, data: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """With a nonce, which is kept with the state: the ID token has to name it."""
        nonce = secrets.token_urlsafe(24)
        given: dict[str, Any] = self.get_auth_params()  # type: ignore[no-untyped-call]
        kwargs["auth_params"] = given | {"nonce": nonce}
        answer: HttpResponse = super().redirect(request, process, next_url, data, nonce=nonce, **kwargs)
        return answer

    def extract_uid(self, data: Mapping[str, Any]) -> str:
        return str(data["sub"])

    def extract_extra_data(self, data: Mapping[str, Any]) -> dict[str, Any]:
        del data
        return {}

    def extract_common_fields(self, data: Mapping[str, Any]) -> dict[str, Any]:
        del data
        return {}

    def extract_email_addresses(self, data: Mapping[str, Any]) -> list[Any]:
        del data
        return []


provider_classes = [LoginProvider]
