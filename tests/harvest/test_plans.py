"""What a site learns from its global costs it no whole table, however many artifacts it knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datamodel.models import HarvestState, StorageSite
from harvest import exchange
from tests.factories import artifact_row
from tests.fakes.feed import FakeInventory
from tests.harvest.selections import Wishes
from tests.plans import many_rows, watching


@pytest.mark.usefixtures("from_global")
def test_no_news_of_a_global_make_a_site_read_a_whole_table(
    site: StorageSite, peer: FakeInventory, policy: Wishes, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [artifact_row(f"cadc:NEW/{number}") for number in range(3)]

    def delete() -> None:
        peer.remove("artifacts", str(rows[0].id))
        peer.add_tombstone(rows[0])

    news: dict[str, Callable[[], object]] = {
        "new artifacts": lambda: [peer.add_artifact(row) for row in rows],
        "known artifacts": lambda: HarvestState.objects.update(epoch="", cur_txid=0),
        "deleted": delete,
    }
    with many_rows([site.id]), watching(monkeypatch) as watch:
        for name, happen in news.items():
            with watch.at(name):
                happen()
                assert exchange.harvest("peer").is_complete
    assert watch.looked_at > 30
    assert not watch.offences, "\n\n".join(watch.offences)
