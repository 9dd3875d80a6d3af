"""Two sites take different content for one URI before either can know of the other."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harvest.demo.peer import Peer
from tests.scenarios.federation import Demo, File, eventually, eventually_at, listing, put, read

pytestmark = pytest.mark.xdist_group("federation")


@contextlib.contextmanager
def held(demo: Demo, *services: str) -> Iterator[None]:
    """These services do nothing for a while, and then go on as if nothing had been."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for service in services:
            for pid in demo.living()[service]:
                os.kill(pid, number)
        if number is signal.SIGSTOP:
            yield


@contextlib.contextmanager
def skewed(demo: Demo, seconds: int) -> Iterator[None]:
    """Alpha's clock is this far ahead of everybody else's."""
    clock = "CREATE OR REPLACE FUNCTION inventory_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS "
    for ahead in (seconds, 0):
        body = f"$$ SELECT date_trunc('milliseconds', clock_timestamp()) + interval '{ahead} seconds' $$"
        demo.sql("alpha", clock + body)
        if ahead:
            yield


def put_both(demo: Demo, contents: tuple[bytes, bytes]) -> tuple[File, File]:
    """At alpha and at beta at once: nothing that one does reaches the other in between, for the global harvests nothing."""
    uri = f"{demo.namespace()}file"
    with held(demo, "global-listen", "global-celery"):
        return put(demo.alpha, uri, contents[0]), put(demo.beta, uri, contents[1])


@pytest.mark.parametrize(("seconds", "won", "lost"), [(-10, "beta", "alpha"), (10, "alpha", "beta")])
def test_the_later_clock_wins_everywhere_and_the_losers_bytes_are_kept_and_listed(
    demo: Demo, seconds: int, won: str, lost: str
) -> None:
    with skewed(demo, seconds):
        files = dict(zip(("alpha", "beta"), put_both(demo, (b"content of alpha", b"beta's, put second")), strict=True))
        winner, loser = files[won], files[lost]
        namespace = winner.uri.removesuffix("file")

        def has_converged() -> bool:
            known = [ids(demo.all_sites, namespace), ids(demo.beta, namespace)]
            return known == [[winner.stored.artifact_id]] * 2 and loser.stored.artifact_id not in ids(
                demo.alpha, namespace
            )

        eventually(has_converged, f"no convergence on {winner}, {loser}")
    assert read(demo.all_sites, winner.uri) == read(demo.beta, winner.uri) == winner.content
    retired = "SELECT state, content_length FROM retired_artifact WHERE id = %s"
    assert demo.sql(lost, retired, loser.stored.artifact_id) == [("retained", len(loser.content))]
    assert kept_bytes(demo, lost, loser) == loser.content
    listed = "SELECT winner_id::text FROM harvest_conflict WHERE loser_id = %s"
    assert demo.sql("global", listed, loser.stored.artifact_id) == [(winner.stored.artifact_id,)]


def test_equal_content_put_at_both_sites_loses_nothing(demo: Demo) -> None:
    with skewed(demo, -10):
        other, winner = put_both(demo, (b"the same", b"the same"))
        namespace, won = winner.uri.removesuffix("file"), [winner.stored.artifact_id]
        eventually_at(demo.everybody, lambda peer: ids(peer, namespace) == won, f"{winner} {other}")
    assert [read(peer, winner.uri) for peer in demo.everybody] == [b"the same"] * 3


def ids(peer: Peer, namespace: str) -> list[str]:
    return [one.artifact_id for one in listing(peer, namespace).values()]


def kept_bytes(demo: Demo, name: str, file: File) -> bytes:
    """What a site's store still holds of a retired artifact."""
    place = "SELECT storage_bucket, storage_id FROM retired_artifact WHERE id = %s"
    ((bucket, storage_id),) = demo.sql(name, place, file.stored.artifact_id)
    return Path(demo.directory, name, "storage", "objects", bucket, storage_id).read_bytes()
