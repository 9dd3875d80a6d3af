"""Artifacts known to this site, stored or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datamodel import operations, rows
from datamodel.models import InventoryIdentity
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from tests.factories import artifact_row, new_content

Know = Callable[..., ArtifactRow]


@pytest.fixture
def know(inventory: InventoryIdentity) -> Know:
    """Makes an artifact known here; `stored` puts its bytes here too, `lost` takes them away again."""

    def make(uri: str, *, stored: bool = False, lost: bool = False) -> ArtifactRow:
        if stored or lost:
            row = operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content(uri.encode())).artifact
            if lost:
                operations.detach_location(artifact_id=row.id)
            return row
        row = artifact_row(uri, uri.encode())
        rows.insert_artifact(row, None)
        return row

    return make
