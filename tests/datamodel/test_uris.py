"""Artifact URIs, namespaces and the map of file names."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from datamodel.errors import InvalidUriError
from datamodel.uris import ArtifactUri, Namespace, namespace_filter, prefix_upper_bound

VALID = [
    ("cadc:IRIS/I001B3H0.fits", "cadc:IRIS/I001B3H0.fits"),
    ("cadc:a//b", "cadc:a//b"),
    ("cadc:a+b,c=d@e!f~g'h(i)j*k:l", "cadc:a+b,c=d@e!f~g'h(i)j*k:l"),
    ("cadc:é", "cadc:%C3%A9"),
    ("cadc:e\u0301", "cadc:%C3%A9"),
    ("cadc:%c3%a9", "cadc:%C3%A9"),
    ("cadc:%41", "cadc:A"),
]
INVALID = [
    "",
    "cadc",
    "cadc:",
    ":x",
    "1a:x",
    "cadc:/x",
    "cadc:x/",
    "cadc:x:",
    "cadc:a b",
    "cadc:a%20b",
    "cadc:a%25b",
    "cadc:a%b",
    "cadc:a\\b",
    "cadc:a;b",
    "cadc:a&b",
    "cadc:a$b",
    "cadc:a?b",
    "cadc:a[b]",
    "cadc:a#b",
    'cadc:a"b',
    "cadc:a<b",
    "cadc:a^b",
    "cadc:a`b",
    "cadc:a{b}",
    "cadc:a|b",
    "cadc:a\tb",
    "cadc:a\nb",
    "cadc:a\u00a0b",
    "cadc:%ff",
    "cadc:" + "x" * 508,
]


@pytest.mark.parametrize(("text", "canonical"), VALID)
def test_a_valid_uri_has_one_ascii_form(text: str, canonical: str) -> None:
    assert ArtifactUri.parse(text).value == canonical
    assert ArtifactUri.parse(canonical).value == canonical


@pytest.mark.parametrize("text", INVALID)
def test_an_invalid_uri_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidUriError, match=r"invalid artifact URI .*: \S"):
        ArtifactUri.parse(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(lambda rest: f"cadc:{rest}"))
def test_what_is_taken_as_it_stands_is_what_the_rules_would_make_of_it(text: str) -> None:
    try:
        expected = ArtifactUri._parse_slowly(text)
    except InvalidUriError:
        with pytest.raises(InvalidUriError):
            ArtifactUri.parse(text)
    else:
        assert ArtifactUri.parse(text) == expected


@pytest.mark.parametrize("text", ["cadc:", "cadc:CFHT/", "cadc:CFHT/preview/", "cadc:CFHT/preview+/"])
def test_valid_namespaces(text: str) -> None:
    assert Namespace.parse(text).value == text


@pytest.mark.parametrize("text", ["", "cadc", ":", "/", "cadc:CFHT"])
def test_invalid_namespaces(text: str) -> None:
    with pytest.raises(InvalidUriError):
        Namespace.parse(text)


def test_the_bucket_is_that_of_the_reference() -> None:
    assert ArtifactUri.parse("cadc:FOO/bar").bucket == "ec9e0"
    assert ArtifactUri.parse("cadc:IRIS/I001B1H0.fits").bucket == "bf32d"


@pytest.mark.parametrize(
    ("uri", "name"), [("cadc:A/b.fits", "b.fits"), ("cadc:b.fits", "b.fits"), ("cadc:A/%C3%A9", "é")]
)
def test_the_file_name_is_the_last_component(uri: str, name: str) -> None:
    assert ArtifactUri.parse(uri).filename == name


_ASCII = st.characters(min_codepoint=33, max_codepoint=126)
COMPONENT = st.binary(min_size=1, max_size=255).filter(lambda b: not {0, 47} & set(b) and b not in {b".", b".."})


@given(st.lists(COMPONENT, min_size=1, max_size=1))
def test_every_file_name_maps_to_a_legal_uri_and_back(components: list[bytes]) -> None:
    namespace = Namespace.parse("demo:files/")
    path = b"/".join(components)
    uri = namespace.uri_for(path)
    assert ArtifactUri.parse(uri.value) == uri
    assert namespace.path_of(uri) == path


@given(st.lists(st.text(min_size=1, max_size=20).map(lambda t: t.encode("utf-8", "ignore")), min_size=1, max_size=4))
def test_unicode_paths_map_and_come_back(components: list[bytes]) -> None:
    clean = [c.replace(b"/", b"").replace(b"\0", b"") for c in components]
    if not all(clean) or {b".", b".."} & set(clean):
        return
    namespace = Namespace.parse("demo:")
    path = b"/".join(clean)
    assert namespace.path_of(namespace.uri_for(path)) == path


NAMES = [
    (b"with blank.txt", "demo:with~20blank.txt"),
    (b"tilde~", "demo:tilde~7E"),
    (b"ends:", "demo:ends~3A"),
    (b"caf\xc3\xa9", "demo:caf%C3%A9"),
    (b"\xff\xfe", "demo:~FF~FE"),
    (b"e\xcc\x81", "demo:e~CC~81"),
]


@pytest.mark.parametrize(("path", "uri"), NAMES)
def test_names_stay_readable(path: bytes, uri: str) -> None:
    assert Namespace.parse("demo:").uri_for(path).value == uri


def test_a_long_name_of_any_bytes_still_fits() -> None:
    namespace = Namespace.parse("demo:some/where/")
    name = bytes(range(128, 256)) + bytes(range(129, 256))
    uri = namespace.uri_for(name)
    assert len(uri.value) <= 512
    assert namespace.path_of(uri) == name


def test_namespaces_inside_others_are_dropped() -> None:
    names = [Namespace.parse(n) for n in ("cadc:A/B/", "cadc:A/", "x:", "cadc:A/")]
    assert [n.value for n in namespace_filter(names)] == ["cadc:A/", "x:"]


@given(st.text(_ASCII, min_size=1, max_size=8), st.text(_ASCII, max_size=8))
def test_the_upper_bound_of_a_prefix_is_above_all_its_texts_and_no_other(prefix: str, rest: str) -> None:
    bound = prefix_upper_bound(prefix)
    assert prefix <= prefix + rest < bound
    assert (prefix <= rest < bound) == rest.startswith(prefix)
