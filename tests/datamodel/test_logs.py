"""Log lines: one END line per unit of work, in one shape, with tokens masked."""

from __future__ import annotations

import logging
import shlex
from datetime import UTC, datetime, timedelta

import pytest

from datamodel import logs
from datamodel.errors import StorageFullError
from datamodel.logs import LineFormatter, mask_tokens, unit_of_work
from datamodel.preauth import Methods, SigningKey, TransferClaims
from datamodel.uris import ArtifactUri
from tests.datamodel.test_preauth import legacy_token

URI = ArtifactUri.parse("cadc:A/b.fits")
TOKEN = SigningKey.generate("k1").sign(
    URI, TransferClaims(Methods.READ, datetime.now(UTC) + timedelta(hours=1), None, None)
)
logger = logging.getLogger("inventory.test")


def line(message: str = "m", **facts: object) -> str:
    record = logging.LogRecord("n", logging.INFO, "p", 1, message, (), None)
    record.facts = facts
    return LineFormatter().format(record)


@pytest.mark.parametrize("token", [TOKEN, legacy_token(f"uri={URI}&gnt=ReadGrant")], ids=["signed", "legacy"])
@pytest.mark.parametrize(
    "form", ["/files/{}/cadc:A/b.fits", "/alpha/files/{}", "GET http://x/files/{} HTTP/1.1", "cannot open '{}'"]
)
def test_signed_tokens_never_reach_a_log(token: str, form: str) -> None:
    text = form.format(token)
    assert token not in mask_tokens(text)
    assert "***" in mask_tokens(text)
    assert token.rsplit(".", maxsplit=1)[-1] not in line(text, path=text)


def test_a_token_in_a_traceback_is_masked_too() -> None:
    try:
        raise ValueError(f"cannot open /files/{TOKEN}/cadc:A/b.fits")
    except ValueError as error:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "m", (), (type(error), error, error.__traceback__))
    assert TOKEN not in LineFormatter().format(record)


@pytest.mark.parametrize(
    "path", ["/files/cadc:A/1.2.3.fits", "/files/cadc:a~b", f"/files/cadc:{'n' * 90}~{'m' * 90}", "/files/1.x.y.z"]
)
def test_names_of_files_are_left_alone(path: str) -> None:
    assert mask_tokens(path) == path


def test_values_that_could_forge_a_line_are_quoted() -> None:
    written = line(path="a b\nEND event=forged", plain="x", none=None, empty="", quote='a"b')
    assert "\n" not in written
    assert "none=" not in written
    words = shlex.split(written)
    assert "plain=x" in words
    assert "empty=" in words
    assert sum(word.startswith("event=") for word in words) == 0


def test_the_request_id_is_on_every_line() -> None:
    bound = logs.request_id.set("abc")
    try:
        assert line().endswith(" request=abc")
    finally:
        logs.request_id.reset(bound)


def test_work_that_ends_well_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with unit_of_work(logger, "sync", artifact="a") as work:
        work.note(bytes=5)
    (record,) = caplog.records
    assert record.getMessage() == "END event=sync"
    facts = record.facts  # type: ignore[attr-defined]  # set by `extra`
    assert (facts["artifact"], facts["bytes"], facts["result"], facts["reason"]) == ("a", 5, "ok", "done")
    assert float(facts["seconds"]) >= 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageFullError("disk full"), "storage_full"),
        (ValueError("x"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_work_that_fails_logs_its_reason_and_lets_the_error_pass(
    caplog: pytest.LogCaptureFixture, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)), unit_of_work(logger, "sync"):
        raise error
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.facts["reason"] == reason  # type: ignore[attr-defined]  # set by `extra`
    assert record.facts["result"] == "failed"  # type: ignore[attr-defined]  # set by `extra`


# So long that whatever looks at a character more than once takes minutes.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["r" * 400_000, "1.a." * 100_000, "r-" * 200_000 + "~x", ("a" * 20 + "~") * 19_000])
def test_masking_looks_at_each_character_once(text: str) -> None:
    assert mask_tokens(text) == text


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\x85b", "a\u2028b", "a\rb", "a\x00b", "a\u202eb", "\ud800"])
def test_a_hostile_value_stays_on_its_line_and_sends_nothing_to_a_terminal(text: str) -> None:
    assert line(path=text).isprintable()
    assert line(path=text).isascii()
