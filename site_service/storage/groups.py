"""Several contents that are stored together, for stores to which that means: one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress

from datamodel.errors import CallerError, StorageError
from site_service.storage.contract import ArtifactStore, StoredObject, Write


def one_by_one(store: ArtifactStore, writes: Sequence[Write]) -> list[StoredObject | CallerError]:
    """As `write_all` of the contract promises; what cannot be removed after a failure is for file validate to find."""
    outcomes: list[StoredObject | CallerError] = []
    with ExitStack() as undo:
        for each in writes:
            try:
                stored = store.write(each.content, each.facts, each.expected)
            except CallerError as error:
                outcomes.append(error)
            else:
                undo.callback(_discard, store, stored.storage_id)
                outcomes.append(stored)
        undo.pop_all()
    return outcomes


def _discard(store: ArtifactStore, storage_id: str) -> None:
    with suppress(StorageError):
        store.remove(storage_id)
