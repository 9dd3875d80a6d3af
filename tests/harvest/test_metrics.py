"""What an operator sees of the exchange."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection

from datamodel.models import RemoteInventory
from harvest import exchange, metrics
from tests.factories import artifact_row
from tests.fakes.feed import FakeInventory


def samples() -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in metrics.collect():
        found[family.name] = [(sample.labels, sample.value) for sample in family.samples]
    return found


def test_lag_rows_and_failures_of_each_remote(from_site: RemoteInventory, peer: FakeInventory) -> None:
    peer.add_artifact(artifact_row())
    peer.add_artifact(artifact_row("cadc:TEST/bad", meta_checksum="md5:" + "0" * 32))
    exchange.harvest("peer")
    found = samples()
    artifacts = {"remote": "peer", "stream": "artifacts", "namespace": ""}
    assert (artifacts, 2.0) in found["inventory_harvest_rows"]
    assert (artifacts, 1.0) in found["inventory_harvest_complete"]
    assert all(0 <= seconds < 60 for _, seconds in found["inventory_harvest_lag_seconds"])
    assert found["inventory_harvest_failing"] == [({"remote": "peer"}, 0.0)]
    assert found["inventory_harvest_rejections_unseen"] == [({}, 1.0)]
    assert found["inventory_harvest_conflicts_unseen"] == [({}, 0.0)]
    RemoteInventory.objects.update(last_error="x")
    assert samples()["inventory_harvest_failing"] == [({"remote": "peer"}, 1.0)]


@pytest.mark.usefixtures("inventory")
def test_the_transaction_that_holds_back_news_is_named() -> None:
    wanted = {"dbname", "user", "host", "port"}
    parameters = {key: value for key, value in connection.get_connection_params().items() if key in wanted}
    with psycopg.connect(**parameters, application_name="nightly-report") as slow:
        slow.execute("SELECT pg_current_xact_id()")
        found = samples()
        ((labels, seconds),) = found["inventory_feed_horizon_holder"]
        assert labels["application"] == "nightly-report"
        assert labels["pid"] == str(slow.info.backend_pid)
        assert found["inventory_feed_horizon_age_seconds"] == [({}, seconds)]
        assert seconds >= 0
    assert samples()["inventory_feed_horizon_age_seconds"] == [({}, 0.0)]
