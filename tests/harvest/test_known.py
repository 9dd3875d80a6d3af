"""Pages that say nothing new are told by four cells of each row; whatever differs is looked at as a whole."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from datamodel import rows
from datamodel.models import Artifact, HarvestState, RemoteInventory, SiteLocation
from datamodel.rules import ArtifactRow, Located
from harvest import client, exchange, operations, staging
from harvest.client import Remote
from harvest.known import is_known
from harvest.pages import Page, PageQuery
from harvest.streams import ARTIFACTS
from tests.factories import WHEN, artifact_row
from tests.fakes.feed import FakeInventory, stamp
from tests.harvest.conftest import remote_to

FIRST, SECOND = artifact_row("cadc:TEST/first"), artifact_row("cadc:TEST/second")
EARLIER, LATER = (stamp(SECOND.meta_modified_at + timedelta(seconds=seconds)) for seconds in (-1, 1))


def told(remote: RemoteInventory) -> bool:
    with client.fetch_page(Remote.of(remote), PageQuery(ARTIFACTS, None, 10_000)) as page:
        return is_known(page, remote_id=remote.id)


@pytest.fixture
def from_known_site(peer: FakeInventory, from_site: RemoteInventory) -> RemoteInventory:
    """A site that we, a global, have harvested: two artifacts."""
    for row in (FIRST, SECOND):
        peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    from_site.refresh_from_db()
    return from_site


def test_a_page_of_which_we_have_every_row_and_copy_is_known(from_known_site: RemoteInventory) -> None:
    assert told(from_known_site)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metaChecksum": "md5:" + "0" * 32}, False),
        ({"metaChecksum": 'md5:"0,1"'}, False),
        ({"metaModified": LATER}, False),
        ({"metaModified": EARLIER}, True),
        ({"metaModified": "2026-13-01T00:00:00.000"}, False),
        ({"metaModified": None}, False),
        ({"contentSha256": "0" * 64}, False),
        ({"contentSha256": None}, True),
        ({"id": str(uuid.uuid4())}, False),
        ({"id": "nonsense"}, False),
        ({"id": None}, False),
    ],
)
def test_one_row_that_differs_is_enough(
    peer: FakeInventory, from_known_site: RemoteInventory, changes: dict[str, str | None], *, expected: bool
) -> None:
    peer.remove("artifacts", str(SECOND.id))
    peer.add_artifact(SECOND, **changes)
    assert told(from_known_site) is expected


def test_a_digest_that_we_lack_is_news(from_known_site: RemoteInventory) -> None:
    Artifact.objects.filter(id=SECOND.id).update(content_sha256=None)
    assert not told(from_known_site)


def test_a_copy_that_we_do_not_know_is_news(from_known_site: RemoteInventory) -> None:
    SiteLocation.objects.filter(artifact_id=SECOND.id).delete()
    assert not told(from_known_site)


def test_the_copy_of_another_site_is_not_that_of_this_one(
    peer: FakeInventory, from_known_site: RemoteInventory
) -> None:
    peer.add_site()
    other = remote_to(peer, role="site", name="other")
    assert not told(other)
    site_id = from_known_site.site_id
    RemoteInventory.objects.filter(id=from_known_site.id).update(site_id=None)
    RemoteInventory.objects.filter(id=other.id).update(site_id=site_id)
    assert told(other)


def test_every_row_of_a_long_page_counts(peer: FakeInventory, from_known_site: RemoteInventory) -> None:
    for number in range(2000):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    exchange.harvest("peer")
    assert told(from_known_site)
    peer.add_artifact(artifact_row("cadc:TEST/new"))
    assert not told(from_known_site)


def test_a_peer_without_our_columns_is_not_told_so(peer: FakeInventory, from_known_site: RemoteInventory) -> None:
    peer.columns["artifacts"].remove("metaModified")
    assert not told(from_known_site)


def test_columns_may_be_in_any_order_and_some_unknown(peer: FakeInventory, from_known_site: RemoteInventory) -> None:
    peer.columns["artifacts"] = ["novelty", *reversed(peer.columns["artifacts"])]
    assert told(from_known_site)


def test_a_known_page_is_not_staged(from_known_site: RemoteInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = []

    def watch(page: Page, *, remote_id: int) -> int:
        staged.append(page.stream.name)
        return staging.stage(page, remote_id=remote_id)

    monkeypatch.setattr(operations, "stage", watch)
    HarvestState.objects.update(epoch="", cur_txid=0, cur_id=uuid.UUID(int=0))
    found = exchange.harvest("peer")
    assert (found.rows, found.changed, found.is_complete) == (3, 0, True)
    assert staged == ["sites"]


def test_a_site_knows_what_it_stores_and_not_what_it_only_wants(
    peer: FakeInventory, from_global: RemoteInventory
) -> None:
    def returned(row: ArtifactRow) -> ArtifactRow:
        return replace(row, last_modified=WHEN + timedelta(days=1))

    rows.insert_artifact(FIRST, Located("a" * 32, "aaa"))
    peer.add_artifact(returned(FIRST))
    assert told(from_global)
    rows.insert_artifact(SECOND, None)
    peer.add_artifact(returned(SECOND))
    assert not told(from_global)
