"""What the locator makes of a global's answers: real HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from datamodel.errors import RemoteError, RemoteProtocolError, RemoteRefusedError, RemoteUnavailableError
from datamodel.service_tokens import Credential
from site_service.file_sync.locator import Global, locate
from site_service.file_sync.rules import Source, Wanted
from tests.fakes.files import FakeGlobal, running
from tests.site_service.file_sync.conftest import wanted

ONE, TWO = wanted(uri="cadc:one"), wanted(uri="cadc:two")


@pytest.fixture
def inventory() -> Iterator[FakeGlobal]:
    fake = FakeGlobal([])
    with running(fake):
        yield fake


def ask(inventory: FakeGlobal, *questions: Wanted) -> dict[str, tuple[tuple[Source, ...], RemoteError | None]]:
    answers = locate([Global("global", inventory.url, Credential(token=inventory.token))], questions)
    return {one.uri: (answers[one.artifact_id].sources, answers[one.artifact_id].error) for one in questions}


def result(of: Wanted, *urls: object, **more: object) -> dict[str, object]:
    return {"uri": of.uri, "id": str(of.artifact_id), "urls": list(urls), **more}


def test_sources_come_in_the_globals_order(inventory: FakeGlobal) -> None:
    urls = [{"url": "http://b/x", "site": "b", "reason": "near"}, {"url": "http://a/x", "site": "a"}]
    inventory.body = json.dumps({"results": [result(ONE, *urls)], "more": 1}).encode()
    assert ask(inventory, ONE)[ONE.uri] == ((Source("http://b/x", "b"), Source("http://a/x", "a")), None)


def test_an_answer_under_another_spelling_is_found_by_what_was_asked(inventory: FakeGlobal) -> None:
    found = {**result(ONE, {"url": "http://a/x", "site": "a"}), "uri": "cadc:other", "requested": ONE.uri}
    inventory.body = json.dumps({"results": [found]}).encode()
    assert len(ask(inventory, ONE)[ONE.uri][0]) == 1


def test_what_the_global_leaves_out_has_no_source_and_costs_the_others_nothing(inventory: FakeGlobal) -> None:
    answers = [result(ONE, {"url": "http://a/x", "site": "a"}), "nonsense", {"uri": 3}, {"uri": "cadc:stranger"}]
    inventory.body = json.dumps({"results": answers}).encode()
    found = ask(inventory, ONE, TWO)
    assert len(found[ONE.uri][0]) == 1
    assert isinstance(found[TWO.uri][1], RemoteProtocolError)


@pytest.mark.parametrize(
    "urls", [[], [{"site": "a"}], ["http://a/x"], [{"url": "", "site": "a"}]], ids=["none", "no url", "text", "empty"]
)
def test_without_a_usable_url_there_is_no_source(inventory: FakeGlobal, urls: list[object]) -> None:
    inventory.body = json.dumps(
        {"results": [result(ONE, *urls, error={"code": "x", "detail": "all are down"})]}
    ).encode()
    sources, error = ask(inventory, ONE)[ONE.uri]
    assert not sources
    assert error is not None
    assert error.retryable
    assert "all are down" in error.detail


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b"\xff", b"null"])
def test_nonsense_is_no_answer(inventory: FakeGlobal, body: bytes) -> None:
    inventory.body = body
    with pytest.raises(RemoteProtocolError, match="global"):
        ask(inventory, ONE)


@pytest.mark.parametrize(
    ("status", "kind"), [(500, RemoteUnavailableError), (503, RemoteUnavailableError), (403, RemoteRefusedError)]
)
def test_a_refusal_is_no_answer(inventory: FakeGlobal, status: int, kind: type[RemoteError]) -> None:
    inventory.statuses.append(status)
    with pytest.raises(kind, match=str(status)):
        ask(inventory, ONE)


def test_a_global_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(RemoteUnavailableError, match="gone does not answer"):
        locate([Global("gone", "http://127.0.0.1:1", Credential(token="t"))], [ONE])


def test_one_question_is_one_request(inventory: FakeGlobal) -> None:
    ask(inventory, ONE, TWO)
    assert inventory.calls == [["cadc:one", "cadc:two"]]
