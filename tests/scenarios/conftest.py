"""One running federation for all scenario tests; they share a worker, so that there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenarios.federation import Demo, running_demo


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("federation") / "demo") as demo:
        yield demo


@pytest.fixture
def demo(_running: Demo) -> Iterator[Demo]:
    """A federation whose services answer, whatever the test before has done to it."""
    _running.await_ready()
    yield _running
    _running.await_ready()
