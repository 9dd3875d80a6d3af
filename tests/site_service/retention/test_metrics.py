"""What waits for removal is a metric."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.site_service.files.requests import put


@pytest.mark.usefixtures("site")
def test_retired_and_obsolete_bytes_are_counted(client: Client) -> None:
    put(client, b"one")
    put(client, b"three")
    put(client, b"three")
    text = client.get("/metrics").content.decode()
    assert 'inventory_retired_artifacts{state="retained"} 1.0' in text
    assert 'inventory_retired_bytes{state="retained"} 3.0' in text
    assert "inventory_obsolete_locations 1.0" in text
