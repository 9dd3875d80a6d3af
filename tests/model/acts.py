"""What an inventory of a model test can be told to do: the product's own operations and views, in a process that may be killed.

Every function takes and returns what JSON can say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.test.client import Client

from datamodel.errors import InventoryError
from datamodel.identity import restamp_feed
from datamodel.models import HarvestState
from datamodel.pairing import client as pairing_client, operations as pairing
from datamodel.remotes import rewind as rewind_states
from datamodel.restoration import StepOptions
from datamodel.uris import ArtifactUri, Namespace
from harvest import exchange, restoring
from harvest.reconcile.compare import reconcile as compare
from harvest.reconcile.rules import Mode
from tests.model.world import TOKEN

if settings.INVENTORY_ROLE == "site":
    from site_service.file_sync import attempts, scan as sync_scan
    from site_service.file_sync.operations import claim_batches, sync_batch
    from site_service.file_validate import queries as validate_queries, recovery, runs
    from site_service.file_validate.operations import apply_finding
    from site_service.file_validate.rules import Action, Policy
    from site_service.file_validate.surveyors import surveyor_of
    from site_service.policy.operations import set_policy
    from site_service.retention import (
        dropping,
        operations as retention,
        queries as retention_queries,
        retire as retirement,
        undelete as retained,
    )
    from site_service.scrub import operations as scrub, queries as scrub_queries, scan as scrub_scan
    from site_service.storage.contract import StoredObject
    from site_service.storage.registry import get_store


def _told(act: Callable[..., Any]) -> Callable[..., Any]:
    """A refusal is an answer: {"refused": its code}."""

    @functools.wraps(act)
    def run(**arguments: Any) -> Any:
        try:
            return act(**arguments)
        except InventoryError as error:
            return {"refused": error.code, "detail": error.detail}

    return run


def provision(*, has_tables: bool) -> None:
    """All that an inventory needs before it serves."""
    call_command("provision", *(["--no-migrate"] if has_tables else []), verbosity=0)


def invite(*, site: str) -> str:
    """A pairing code for a site."""
    return pairing.invite(name=site, role="site").code


def accept(*, code: str, known_as: str) -> None:
    """Pair with the global that made it."""
    pairing_client.accept(code=code, name=known_as)


# --- what users do


def _client() -> Client:
    return Client(raise_request_exception=True, HTTP_AUTHORIZATION=f"Bearer {TOKEN}", SERVER_NAME="127.0.0.1")


def put(*, uri: str, content: str) -> int:
    """The status."""
    response = _client().put(f"/files/{uri}", data=content.encode(), content_type="application/octet-stream")
    return response.status_code


def delete(*, uri: str) -> int:
    """The status."""
    return _client().delete(f"/files/{uri}").status_code


def read(*, uris: list[str]) -> dict[str, str | None]:
    """The content of each, None for 404 (anything else is a failure)."""
    return {uri: _read(uri) for uri in uris}


def _read(uri: str) -> str | None:
    response: Any = _client().get(f"/files/{uri}")
    if response.status_code == 404:
        return None
    assert response.status_code == 200, (uri, response.status_code, response.content)
    try:
        return b"".join(response.streaming_content if response.streaming else [response.content]).decode("latin-1")
    finally:
        response.close()


def redirect(*, uris: list[str]) -> dict[str, int]:
    """What a global says to GET: 303 to a copy, or 404."""
    return {uri: _client().get(f"/files/{uri}").status_code for uri in uris}


@_told
def undelete(*, uri: str, replaces: bool) -> dict[str, Any]:
    """The id that the content has now."""
    recorded = retained.undelete_uri(uri=ArtifactUri.parse(uri), replaces=replaces)
    return {"id": str(recorded.artifact.id)}


# --- what operators do


def policy(*, namespace: str, wanted: bool) -> None:
    """One rule."""
    set_policy(namespace=Namespace.parse(namespace), wanted=wanted)


def rewind() -> int:
    """Harvest everything from the start."""
    return rewind_states(states=HarvestState.objects.all())


def restamp() -> int:
    """After a restore."""
    return restamp_feed()


def regain() -> dict[str, Any]:
    """The step of a restore in which the peers are asked."""
    report: dict[str, Any] = restoring.reconcile_with_peers(StepOptions())
    return report


def recover() -> int:
    """The step in which the store is asked; how many runs of retire were ended. Buckets without a directory have nothing."""
    ended = retirement.end_all()
    validate(believed=Policy.RECOVER_FROM_STORAGE)
    return ended


def compare_store() -> dict[str, Any]:
    """The step in which copies without bytes leave service."""
    return recovery.validate(StepOptions())


@_told
def retire(*, namespace: str) -> dict[str, Any]:
    """A run over a namespace, as far as it comes: files by what became of them."""
    run = retirement.begin_run(namespace=Namespace.parse(namespace), reason="model", started_by="model")
    retirement.advance(seconds=60)
    run.refresh_from_db()
    return {"state": run.state, "dropped": run.dropped_files, "refused": run.refused_files}


def give_back() -> int:
    """What no release here is behind counts again at the globals."""
    return dropping.give_back_unknown()


@_told
def validate(*, believed: str) -> dict[str, int]:
    """A whole run, applied: how often each action was carried out."""
    store, at_once = get_store(), timedelta(0)
    # A recovery looks at each of thousands of buckets; those without a directory have nothing.
    buckets = _buckets() if believed == Policy.RECOVER_FROM_STORAGE else [""]
    for bucket in buckets:
        run = runs.open_run(policy=Policy(believed), started_by="model", bucket_prefix=bucket)
        progress = runs.advance(run_id=run.id, surveyor=surveyor_of(store), seconds=60, grace=at_once)
        assert progress is None or progress.is_complete
    done: dict[str, int] = {}
    for finding in list(validate_queries.findings(policy=believed).exclude(action=Action.NONE.value)):
        applied = apply_finding(store=store, finding_id=finding.pk, decided_by="model", grace=at_once)
        done[finding.action] = done.get(finding.action, 0) + applied.is_done
    return done


def _buckets() -> list[str]:
    configured: Any = settings.STORAGES["artifacts"]
    return sorted(path.name for path in (Path(configured["OPTIONS"]["root"]) / "objects").iterdir())


@_told
def reconcile(*, remote: str, mode: str) -> dict[str, int]:
    """What was found, by label."""
    differences: dict[str, int] = compare(remote, mode=Mode(mode)).differences
    return differences


# --- what time does


@_told
def harvest(*, names: list[str]) -> dict[str, Any]:
    """One turn with each: rows, changes, whether nothing was left; the first error ends it."""
    found = [exchange.harvest(name) for name in names]
    return {
        "rows": sum(one.rows for one in found),
        "changed": sum(one.changed for one in found),
        "rejected": sum(one.rejected for one in found),
        "is_complete": all(one.is_complete for one in found),
    }


def turn(*, names: list[str]) -> dict[str, Any]:
    """What a round of time brings: harvest, and at a site file sync, and what is left of a retirement."""
    found: dict[str, Any] = harvest(names=names)
    if settings.INVENTORY_ROLE != "site":
        return found | {"stored": 0}
    if retention_queries.has_open_runs():
        # Even if it only came to its end: others may have to hear of it.
        found["changed"] = found.get("changed", 0) + 1
        retirement.advance(seconds=60)
    found |= sync()
    return found


def look(*, uris: list[str]) -> dict[str, Any]:
    """What users can read, and what is in the store."""
    return {"read": read(uris=uris), "objects": objects()}


@_told
def sync() -> dict[str, int]:
    """File sync until nothing is due."""
    sync_scan.note_missing()
    store, done = get_store(), {"stored": 0, "failed": 0}
    while leases := claim_batches(batches=1, store=store):
        result = sync_batch(lease=leases[0], store=store)
        if result is not None:
            done = {"stored": done["stored"] + result.stored, "failed": done["failed"] + result.failed}
    attempts.try_now()
    return done


def verify() -> int:
    """Scrub everything that is stored; how many copies were found damaged."""
    scrub_scan.follow(scrub_queries.configured_schedule())
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE copy_verification SET next_at = '2000-01-01Z'")
    damaged = 0
    while run := scrub.begin_run(seconds=60):
        result = scrub.carry_run(lease=run.lease, artifact_ids=run.artifact_ids, store=get_store())
        if result is None or not result.files:
            break
        damaged += result.damaged
    scrub_scan.settle()
    return damaged


def purge() -> int:
    """Bytes whose retention is over; how many went."""
    store = get_store()
    gone = [retention.purge_retired(store=store, artifact_id=one) for one in retention_queries.due_retired()]
    gone += [retention.remove_obsolete(store=store, location_id=one) for one in retention_queries.due_obsolete()]
    for one in retention_queries.reattached():
        retention.follow_facts(store=store, artifact_id=one)
    return sum(gone)


def objects() -> list[list[Any]]:
    """Everything in the store: its place, whose it says to be, and its length (-1: not to be read)."""
    found = []
    for one in get_store().iterate():
        if isinstance(one, StoredObject):
            found.append([one.storage_id, one.facts.uri, one.length])
        else:
            found.append([one.storage_id, "", -1])
    return found
