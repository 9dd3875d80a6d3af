"""Changing the policy: rules, dropped rows and what harvest is asked for, in one transaction."""

from __future__ import annotations

import pytest
from django.db import connection
from hypothesis import given, settings as hypothesis_settings

from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    HarvestState,
    RemoteInventory,
)
from datamodel.uris import Namespace
from site_service.policy import queries
from site_service.policy.models import SyncPolicy
from site_service.policy.operations import apply_first_policy, remove_policy, set_policy
from site_service.policy.queries import PolicyPreview, current_policy
from site_service.policy.rules import Policy, Rule
from tests.site_service.policy.conftest import Know
from tests.site_service.policy.test_rules import _POLICIES, _URIS

pytestmark = pytest.mark.usefixtures("inventory")

CADC, PART, OTHER = (Namespace.parse(name) for name in ("cadc:", "cadc:A/", "gemini:"))


def uris() -> list[str]:
    return sorted(Artifact.objects.values_list("uri", flat=True))


def test_a_first_rule_is_widening() -> None:
    change = set_policy(namespace=CADC, wanted=True, priority=3, note="all of it")
    assert change.is_changed
    assert change.widened == [CADC]
    assert current_policy().rules == [Rule(CADC, priority=3)]
    assert SyncPolicy.objects.get().note == "all of it"


def test_a_repeat_changes_nothing_and_keeps_the_note() -> None:
    set_policy(namespace=CADC, wanted=True, note="all of it")
    again = set_policy(namespace=CADC, wanted=True)
    assert not again.is_changed
    assert not again.widened
    assert SyncPolicy.objects.get().note == "all of it"


def test_narrowing_drops_unstored_rows_without_an_event_and_keeps_the_stored_ones(know: Know) -> None:
    set_policy(namespace=CADC, wanted=True)
    for uri, stored in [("cadc:A/unstored", False), ("cadc:A/stored", True), ("cadc:B/unstored", False)]:
        know(uri, stored=stored)
    change = set_policy(namespace=PART, wanted=False)
    assert change.dropped == 1
    assert uris() == ["cadc:A/stored", "cadc:B/unstored"]
    assert not DeletedArtifactEvent.objects.exists()
    assert not DeletedStorageLocationEvent.objects.exists()


def test_narrowing_spares_what_a_deeper_rule_still_wants(know: Know) -> None:
    set_policy(namespace=CADC, wanted=True)
    set_policy(namespace=PART, wanted=True)
    know("cadc:A/f")
    know("cadc:B/f")
    assert remove_policy(namespace=CADC).narrowed == [CADC]
    assert uris() == ["cadc:A/f"]


def test_narrowing_keeps_a_row_whose_copy_was_lost_here(know: Know) -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:A/lost", lost=True)
    assert set_policy(namespace=PART, wanted=False).dropped == 0
    assert uris() == ["cadc:A/lost"]


def test_removing_an_exclude_widens_and_removing_nothing_changes_nothing() -> None:
    set_policy(namespace=CADC, wanted=True)
    set_policy(namespace=PART, wanted=False)
    assert remove_policy(namespace=PART).widened == [PART]
    assert not remove_policy(namespace=PART).is_changed


def test_the_first_policy_is_applied_once_and_never_over_an_operators() -> None:
    rules = [Rule(CADC), Rule(PART, wanted=False)]
    assert apply_first_policy(rules=rules)
    assert current_policy().rules == rules
    assert not apply_first_policy(rules=[Rule(OTHER)])
    assert current_policy().rules == rules


def test_no_rules_are_no_policy() -> None:
    assert not apply_first_policy(rules=[])
    assert apply_first_policy(rules=[Rule(CADC)])


def test_a_preview_counts_what_the_change_then_does(know: Know) -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:A/unstored")
    stored = know("cadc:A/stored", stored=True)
    held_back = know("gemini:f")
    old = current_policy()
    assert queries.preview(old, old.changed(Rule(PART, wanted=False))) == PolicyPreview(
        widened=[], narrowed=[PART], dropped=1, kept=1, kept_bytes=stored.content_length, gained=0, gained_bytes=0
    )
    assert queries.preview(old, old.changed(Rule(OTHER))) == PolicyPreview(
        widened=[OTHER], narrowed=[], dropped=0, kept=0, kept_bytes=0, gained=1, gained_bytes=held_back.content_length
    )
    assert set_policy(namespace=PART, wanted=False).dropped == 1


def test_the_selection_for_harvest_names_the_wanted_namespaces_and_judges_every_uri() -> None:
    set_policy(namespace=CADC, wanted=True)
    set_policy(namespace=PART, wanted=False)
    selection = queries.harvest_selection()
    assert selection.wanted == (CADC,)
    assert selection.is_wanted("cadc:B/f")
    assert not selection.is_wanted("cadc:A/f")


@hypothesis_settings(max_examples=60, deadline=None)
@given(policy=_POLICIES)
def test_the_sql_of_a_policy_wants_what_the_policy_wants(policy: Policy) -> None:
    sql, values = queries.wanted_under(policy)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT a.uri, {sql} FROM unnest(%s::text[]) AS a(uri)", [*values, _URIS])
        answers = dict(cursor.fetchall())
    assert answers == {uri: policy.is_wanted(uri) for uri in _URIS}


@pytest.fixture
def main_cursor() -> HarvestState:
    """This site harvests a global and has read `cadc:A/` of it."""
    remote = RemoteInventory.objects.create(name="global", role="global", url="http://127.0.0.1:1")
    return HarvestState.objects.create(
        remote=remote, name="artifacts", selector="", epoch="e" * 16, cur_txid=9, covers=["cadc:A/"], is_complete=True
    )


def test_widening_asks_harvest_for_the_past_and_narrowing_takes_that_back(main_cursor: HarvestState) -> None:
    set_policy(namespace=PART, wanted=True)
    set_policy(namespace=OTHER, wanted=True)
    backfills = HarvestState.objects.exclude(selector="")
    assert sorted(backfills.values_list("selector", "epoch", "cur_txid")) == [("cadc:A/", "", 0), ("gemini:", "", 0)]
    remove_policy(namespace=OTHER)
    assert list(backfills.values_list("selector", flat=True)) == ["cadc:A/"]
    remove_policy(namespace=PART)
    main_cursor.refresh_from_db()
    assert main_cursor.covers == []
    assert not backfills.exists()
