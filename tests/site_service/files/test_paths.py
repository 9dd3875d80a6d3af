"""The path grammar below /files/ (reference 2.2)."""

from __future__ import annotations

import pytest

from datamodel.errors import InvalidUriError
from site_service.files.paths import FilePath, ListingPath, parse_path


@pytest.mark.parametrize(
    ("raw", "token", "uri", "filename"),
    [
        ("cadc:A/x.fits", None, "cadc:A/x.fits", None),
        ("cadc:A//x.fits", None, "cadc:A//x.fits", None),
        ("cadc:A/x+y=1,2@z!.fits", None, "cadc:A/x+y=1,2@z!.fits", None),
        ("cadc:A/b:c.fits", None, "cadc:A/b:c.fits", None),
        ("cadc:A/é.fits", None, "cadc:A/%C3%A9.fits", None),
        ("cadc:A/%C3%A9.fits", None, "cadc:A/%C3%A9.fits", None),
        ("1.k.c.s/cadc:A/x.fits", "1.k.c.s", "cadc:A/x.fits", None),
        ("meta=~sig=/cadc:A/x.fits", "meta=~sig=", "cadc:A/x.fits", None),
        ("cadc:A/x.fits:fo/other name.fits", None, "cadc:A/x.fits", "other name.fits"),
        ("tok/cadc:A/x.fits:fo/y", "tok", "cadc:A/x.fits", "y"),
        ("cadc:fo/x.fits", None, "cadc:fo/x.fits", None),
        ("cadc:A:fo/b/x", None, "cadc:A:fo/b/x", None),
    ],
)
def test_a_file(raw: str, token: str | None, uri: str, filename: str | None) -> None:
    path = parse_path(raw)
    assert isinstance(path, FilePath)
    assert (path.token, path.uri.value, path.filename) == (token, uri, filename)


@pytest.mark.parametrize(
    ("raw", "namespace"), [("", None), ("cadc:", "cadc:"), ("cadc:A/", "cadc:A/"), ("cadc:A/B/", "cadc:A/B/")]
)
def test_a_namespace(raw: str, namespace: str | None) -> None:
    path = parse_path(raw)
    assert isinstance(path, ListingPath)
    assert (path.namespace.value if path.namespace else None) == namespace


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("nothing", "SCHEME:PATH/NAME"),
        ("token/nothing", "SCHEME:PATH/NAME"),
        ("/cadc:A/x", "must not start with '/'"),
        ("cadc:/A/x", "must not start with '/'"),
        ("cadc:A/my file", "~20"),
        ("cadc:A/new\nline", "not allowed"),
        ("cadc:A/%E9", "not UTF-8"),
        ("cadc:A/100%", "hex digits"),
        ("cadc:A/x?y", "not allowed"),
        (":x", "scheme"),
        ("cadc:" + "x" * 600, "512"),
        ("tok/cadc:A/", "must not end"),
    ],
)
def test_nonsense_is_refused_with_the_reason_and_without_the_token(raw: str, hint: str) -> None:
    with pytest.raises(InvalidUriError) as refused:
        parse_path(raw)
    assert hint in refused.value.detail
    assert "tok" not in refused.value.detail
