"""Two sites take different content for one URI before either can know of the other."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

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


@pytest.fixture
def slow_alpha(demo: Demo) -> Iterator[None]:
    """Alpha's clock is ten seconds behind beta's."""
    clock = "CREATE OR REPLACE FUNCTION inventory_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS "
    demo.sql("alpha", clock + "$$ SELECT date_trunc('milliseconds', clock_timestamp()) - interval '10 seconds' $$")
    yield
    demo.sql("alpha", clock + "$$ SELECT date_trunc('milliseconds', clock_timestamp()) $$")


def put_both(demo: Demo, first: Peer, second: Peer, contents: tuple[bytes, bytes]) -> tuple[File, File]:
    """At once: nothing that one site does reaches the other in between, because the global harvests nothing."""
    uri = f"{demo.namespace()}file"
    with held(demo, "global-listen", "global-celery"):
        return put(first, uri, contents[0]), put(second, uri, contents[1])


@pytest.mark.usefixtures("slow_alpha")
def test_the_later_clock_wins_everywhere_and_the_losers_bytes_are_kept_and_listed(demo: Demo) -> None:
    winner, loser = put_both(demo, demo.beta, demo.alpha, (b"content of beta", b"content of alpha, put later"))
    namespace = winner.uri.removesuffix("file")

    won, lost = [winner.stored.artifact_id], loser.stored.artifact_id

    def has_converged() -> bool:
        return ids(demo.all_sites, namespace) == ids(demo.beta, namespace) == won and lost not in ids(
            demo.alpha, namespace
        )

    eventually(has_converged, f"no convergence on {winner}")
    assert read(demo.all_sites, winner.uri) == read(demo.beta, winner.uri) == winner.content
    retired = "SELECT state, content_length FROM retired_artifact WHERE id = %s"
    assert demo.sql("alpha", retired, loser.stored.artifact_id) == [("retained", len(loser.content))]
    listed = "SELECT winner_id::text FROM harvest_conflict WHERE loser_id = %s"
    assert demo.sql("global", listed, loser.stored.artifact_id) == [(winner.stored.artifact_id,)]
    assert kept_bytes(demo, loser) == loser.content


@pytest.mark.usefixtures("slow_alpha")
def test_equal_content_put_at_both_sites_loses_nothing(demo: Demo) -> None:
    winner, other = put_both(demo, demo.beta, demo.alpha, (b"the same", b"the same"))
    namespace = winner.uri.removesuffix("file")
    eventually_at(demo.everybody, lambda peer: ids(peer, namespace) == [winner.stored.artifact_id], f"{winner} {other}")
    assert [read(peer, winner.uri) for peer in demo.everybody] == [b"the same"] * 3


def ids(peer: Peer, namespace: str) -> list[str]:
    return [one.artifact_id for one in listing(peer, namespace).values()]


def kept_bytes(demo: Demo, file: File) -> bytes:
    """What alpha's store still holds of a retired artifact."""
    place = "SELECT storage_id FROM retired_artifact WHERE id = %s"
    ((storage_id,),) = demo.sql("alpha", place, file.stored.artifact_id)
    (found,) = (demo.directory / "alpha" / "storage").rglob(f"*{storage_id}*")
    return found.read_bytes()[: len(file.content)]
