"""Somebody else's list against the inventory: CSV and VOTable, any order, flat memory."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from datamodel.errors import InvalidRequestError
from datamodel.models import InventoryIdentity
from datamodel.rules import Located
from datamodel.uris import Namespace
from site_service.file_validate import cross_match as module
from site_service.file_validate.cross_match import Kind, Mismatch, Tally, cross_match
from site_service.file_validate.lists import Entry, Malformed, read_list
from tests.factories import artifact_row, insert_artifact_row

MD5 = hashlib.md5(b"content").hexdigest()
SHA256 = hashlib.sha256(b"content").hexdigest()
VOTABLE = """<?xml version="1.0"?>
<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="contentLength" datatype="long"/><FIELD name="other" datatype="char" arraysize="*"/>
<FIELD name="uri" datatype="char" arraysize="*"/><FIELD name="contentChecksum" datatype="char" arraysize="*"/>
<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"""


def know(uri: str, *, stored: bool = True) -> None:
    row = artifact_row(uri)
    insert_artifact_row(row, Located(row.id.hex, row.id.hex[:3]) if stored else None)


def entries(text: str) -> list[Entry | Malformed]:
    return list(read_list(io.BytesIO(text.encode())))


def match(text: str, *namespaces: str, stored_only: bool = False) -> tuple[list[tuple[str, str]], Tally]:
    tally = Tally()
    names = [Namespace.parse(name) for name in namespaces]
    found = cross_match(entries(text), tally, namespaces=names, stored_only=stored_only)
    return [(one.kind.value, one.uri) for one in found], tally


# Reading


def test_a_csv_without_heading_has_uri_digest_and_length() -> None:
    text = f"cadc:A/1,md5:{MD5},7\n\n# a remark\ncadc:A/2,{MD5.upper()}\ncadc:A/3,{SHA256},\n"
    assert entries(text) == [
        Entry(1, "cadc:A/1", f"md5:{MD5}", 7),
        Entry(2, "cadc:A/2", f"md5:{MD5}", None),
        Entry(3, "cadc:A/3", f"sha-256:{SHA256}", None),
    ]


def test_a_heading_names_columns_in_any_order_and_unknown_ones_are_passed_over() -> None:
    text = "\ufeffcontent_length,note,URI\r\n7,x,cadc:A/1\r\n".replace("content_length,note,URI", "length,note,URI")
    assert entries(text) == [Entry(1, "cadc:A/1", None, 7)]
    assert entries(f'uri,md5\n"cadc:A/1",{MD5}\n') == [Entry(1, "cadc:A/1", f"md5:{MD5}", None)]
    with pytest.raises(InvalidRequestError, match="no column uri"):
        entries("length,digest\n1,2\n")


def test_rows_that_say_nothing_are_malformed_and_do_not_end_the_list() -> None:
    found = entries(f"cadc:A/1,nonsense\nno uri at all\ncadc:A/2,,minus\ncadc:A/3,md5:{MD5},7\n")
    assert [type(one) for one in found] == [Malformed, Malformed, Malformed, Entry]


def test_a_votable_is_known_by_its_form() -> None:
    rows = f"<TR><TD>7</TD><TD/><TD>cadc:A/1</TD><TD>md5:{MD5}</TD></TR><TR><TD/><TD/><TD>cadc:A/2</TD><TD/></TR>"
    assert entries(VOTABLE.format(rows=rows)) == [
        Entry(1, "cadc:A/1", f"md5:{MD5}", 7),
        Entry(2, "cadc:A/2", None, None),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (VOTABLE.format(rows="<TR>")[:-30], "after row 0"),
        ("<VOTABLE><FIELD name='uri'/><DATA><BINARY2/></DATA></VOTABLE>", "TABLEDATA"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><VOTABLE>&b;</VOTABLE>", "cannot be read"),
    ],
)
def test_what_cannot_be_read_as_a_votable_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        entries(text)


# Comparing


@pytest.mark.usefixtures("inventory")
def test_missing_extra_and_different_are_told_apart() -> None:
    for name in ("same", "length", "digest", "extra", "unverified"):
        know(f"cadc:A/{name}")
    know("cadc:B/elsewhere")
    text = "\n".join(
        [
            f"cadc:A/same,md5:{MD5},7",
            "cadc:A/length,,8",
            f"cadc:A/digest,md5:{'0' * 32},7",
            "cadc:A/missing",
            "cadc:A/unverified",
            "not a uri",
        ]
    )
    found, tally = match(text, "cadc:A/")
    assert found == [
        ("malformed", "not a uri"),
        ("different", "cadc:A/digest"),
        ("different", "cadc:A/length"),
        ("missing", "cadc:A/missing"),
        ("extra", "cadc:A/extra"),
    ]
    assert (tally.listed, tally.matched, tally.unverified) == (6, 2, 1)
    assert tally.mismatches == {Kind.MISSING: 1, Kind.EXTRA: 1, Kind.DIFFERENT: 2, Kind.MALFORMED: 1}
    assert ("extra", "cadc:B/elsewhere") in match(text)[0]


@pytest.mark.usefixtures("inventory")
def test_either_digest_of_the_inventory_counts() -> None:
    know("cadc:A/1")
    assert match(f"cadc:A/1,sha-256:{SHA256}")[1].unverified == 0
    assert match(f"cadc:A/1,sha-256:{'0' * 64}")[0] == [("different", "cadc:A/1")]
    found, tally = match(f"cadc:A/1,sha-1:{'0' * 40}")
    assert (found, tally.unverified) == ([], 1)


@pytest.mark.usefixtures("inventory")
def test_only_what_is_stored_here_counts_if_asked() -> None:
    know("cadc:A/known", stored=False)
    know("cadc:A/other", stored=False)
    assert match("cadc:A/known")[0] == [("extra", "cadc:A/other")]
    assert match("cadc:A/known", stored_only=True)[0] == [("missing", "cadc:A/known")]


@pytest.mark.usefixtures("inventory")
def test_pages_neither_lose_nor_repeat_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(module, "_STAGED", 4)
    for number in range(10):
        know(f"cadc:A/{number}")
    listed = [f"cadc:A/{number}" for number in (9, 3, 7, 1, 3, 11, 12)]
    found, tally = match("\n".join(listed))
    assert found[:3] == [("missing", "cadc:A/11"), ("missing", "cadc:A/12"), ("malformed", "cadc:A/3")]
    assert [uri for kind, uri in found if kind == "extra"] == [f"cadc:A/{n}" for n in (0, 2, 4, 5, 6, 8)]
    assert tally.matched == 4


def test_a_long_list_needs_no_memory(inventory: InventoryIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    del inventory
    monkeypatch.setattr(module, "_STAGED", 5000)
    know("cadc:A/extra")

    def lines() -> Iterator[bytes]:
        for number in range(60_000):
            yield b"cadc:A/%d,md5:%s,7\n" % (number, MD5.encode())

    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self._lines, self._held = lines(), b""

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            while len(self._held) < size and (line := next(self._lines, b"")):
                self._held += line
            block, self._held = self._held[:size], self._held[size:]
            return block

    tally, kinds = Tally(), set()
    tracemalloc.start()
    try:
        for one in cross_match(read_list(Endless()), tally):  # type: ignore[arg-type]  # enough of a stream
            kinds.add(one.kind)
            assert isinstance(one, Mismatch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tally.listed, tally.mismatches[Kind.MISSING], kinds) == (60_000, 60_000, {Kind.MISSING, Kind.EXTRA})
    assert peak < 12 * 1024 * 1024


@pytest.mark.usefixtures("inventory")
def test_the_command_writes_differences_as_csv_and_a_summary(tmp_path: Path) -> None:
    know("cadc:A/extra")
    listed, output = tmp_path / "list.csv", tmp_path / "out.csv"
    listed.write_text("uri\ncadc:A/missing\n")
    told = io.StringIO()
    call_command("cross_match", str(listed), "--output", str(output), stderr=told)
    assert output.read_text() == (
        'kind,uri,detail\nmissing,cadc:A/missing,not known here\nextra,cadc:A/extra,"7 bytes, stored here"\n'
    )
    assert "1 listed, 0 match" in told.getvalue()
    assert "1 missing, 1 extra" in told.getvalue()
    out = io.StringIO()
    call_command("cross_match", str(listed), "--namespace", "cadc:B/", stdout=out, stderr=told)
    assert out.getvalue().splitlines() == ["kind,uri,detail", "missing,cadc:A/missing,not known here"]
    for argv in ([str(tmp_path / "nothing")], [str(listed), "--namespace", "cadc"]):
        with pytest.raises(CommandError):
            call_command("cross_match", *argv, stdout=out, stderr=told)
