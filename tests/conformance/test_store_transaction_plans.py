"""Random plans of appends and reverts: a put transaction equals a list of byte strings."""

from __future__ import annotations

import hashlib
import io
import uuid
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from datamodel.errors import ShortBodyError, StateConflictError
from site_service.storage.contract import ContentFacts
from tests.conformance.conftest import StoreUnderTest
from tests.faults import BreakingSource


class Step(NamedTuple):
    """`append`, `fail` (an append that is cut), `revert` or `restart`."""

    action: str
    content: bytes


steps = st.lists(
    st.builds(
        Step, st.sampled_from(["append", "append", "append", "fail", "revert", "restart"]), st.binary(max_size=200)
    ),
    max_size=12,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_a_put_transaction_equals_a_list_of_segments(under_test: StoreUnderTest, plan: list[Step]) -> None:
    store, model = under_test.store, list[bytes]()
    facts = ContentFacts(uuid.uuid4(), "cadc:TEST/a")
    key = store.begin(facts).transaction_id
    for step in plan:
        if step.action == "append":
            store.append(key, io.BytesIO(step.content))
            model.append(step.content)
        elif step.action == "fail":
            with pytest.raises(ShortBodyError):
                store.append(key, BreakingSource(step.content, ShortBodyError("cut")))
        elif step.action == "restart":
            store = under_test.reopen()
        elif model:
            store.revert(key)
            model.pop()
        else:
            with pytest.raises(StateConflictError):
                store.revert(key)
        whole = b"".join(model)
        status = store.status(key)
        assert (status.length, status.checksums["md5"]) == (len(whole), hashlib.md5(whole).hexdigest())
    stored = store.commit(key, facts)
    reader = store.open(stored.storage_id, expected_length=stored.length)
    assert reader.read() == b"".join(model)
    reader.close()
    store.remove(stored.storage_id)
