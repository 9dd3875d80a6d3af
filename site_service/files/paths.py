"""The path below `/files/`: `[{token}/]{artifact uri}[:fo/{filename}]`, or a namespace to list (reference 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from datamodel.errors import InvalidUriError
from datamodel.uris import ArtifactUri, Namespace

_OVERRIDE = ":fo/"


@dataclass(frozen=True, slots=True)
class FilePath:
    """One artifact; `token` is that of a signed URL, `filename` the name to save it under."""

    uri: ArtifactUri
    token: str | None = None
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class ListingPath:
    """A namespace to list, or everything (`namespace` is None)."""

    namespace: Namespace | None


def parse_path(text: str) -> FilePath | ListingPath:
    """From the path as Django passes it on: decoded once, bytes that are not UTF-8 still escaped. Raises `InvalidUriError`.

    A token is there iff the first `/` comes before the first `:`. What ends in `/` or `:` names a namespace.
    """
    token, rest = _split_token(text)
    if token is None and (not rest or rest.endswith(("/", ":"))):
        return ListingPath(Namespace.parse(rest) if rest else None)
    scheme, colon, path = rest.partition(":")
    if not colon:
        raise InvalidUriError(f"missing or invalid artifact URI {rest!r}: write /files/SCHEME:PATH/NAME")
    path, filename = _split_override(path)
    return FilePath(ArtifactUri.parse(f"{scheme}:{path}"), token, filename)


def _split_token(text: str) -> tuple[str | None, str]:
    slash, colon = text.find("/"), text.find(":")
    if slash < 0 or 0 <= colon < slash:
        return None, text
    if slash == 0:
        raise InvalidUriError("missing artifact URI: the path below /files/ must not start with '/'")
    return text[:slash], text[slash + 1 :]


def _split_override(path: str) -> tuple[str, str | None]:
    """The last `:fo/` counts, if what follows can be a file name."""
    before, mark, filename = path.rpartition(_OVERRIDE)
    if not mark or not before or not filename or "/" in filename:
        return path, None
    return before, filename
