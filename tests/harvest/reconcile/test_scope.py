"""The sets that both ends can name: SQL says what Python says, whatever the filter, the depth and the role."""

from __future__ import annotations

import random
import uuid
from itertools import pairwise, product

import pytest
from hypothesis import given, strategies as st
from pytest_django.fixtures import Settings

from datamodel.errors import RemoteProtocolError
from datamodel.models import InventoryIdentity, SiteLocation, StorageSite
from datamodel.rules import ArtifactRow, Located, event_meta_checksum
from datamodel.uris import Namespace
from harvest.reconcile import queries, wire
from harvest.reconcile.scope import (
    Digest,
    Filter,
    Kind,
    Listed,
    Scope,
    Tree,
    count_parts,
    different_rows,
    differing,
    id_range,
    listing_groups,
    next_depth,
    parts_of,
    section_digits,
    total_of,
    tree_lines,
    tree_of,
    whole_of,
    word_of,
    worth_descending,
)
from tests.factories import artifact_row, insert_artifact_row

SOME_IDS = [2 * digit for digit in "0123456789abcde"]
NAMES = ["cadc:", "cadc:A/", "cadc:A/b/", "cadc:A/b/c/", "cadc:D/", "other:"]


def members(rows: dict[uuid.UUID, ArtifactRow], stored: set[uuid.UUID], scope: Scope) -> list[ArtifactRow]:
    """The definition."""
    if scope.kind is Kind.STORED:
        return [row for row in rows.values() if row.id in stored and scope.takes(row.uri)]
    return [row for row in rows.values() if row.id in stored or scope.takes(row.uri)]


def random_filter(dice: random.Random) -> Filter:
    chosen = dice.sample(NAMES, dice.randrange(len(NAMES)))
    cut = dice.randrange(len(chosen) + 1)
    return Filter(tuple(map(Namespace.parse, chosen[:cut])), tuple(map(Namespace.parse, chosen[cut:])))


@pytest.mark.parametrize("role", ["site", "global"])
def test_digests_and_listings_in_sql_are_those_of_their_definition(
    inventory: InventoryIdentity, settings: Settings, role: str
) -> None:
    settings.INVENTORY_ROLE = role
    dice = random.Random(role)
    site = StorageSite.objects.create(resource_id="ivo://a", name="a", last_modified=artifact_row().last_modified)
    other = StorageSite.objects.create(resource_id="ivo://b", name="b", last_modified=artifact_row().last_modified)
    rows, stored = {}, set()
    for number in range(150):
        row = artifact_row(f"{dice.choice(NAMES)}f{number}")
        is_stored = dice.random() < 0.5
        insert_artifact_row(row, Located(row.id.hex, "b") if is_stored and role == "site" else None)
        rows[row.id] = row
        stored |= {row.id} if is_stored else set()
        holders = [other] + ([site] if is_stored else [])
        SiteLocation.objects.bulk_create(SiteLocation(artifact_id=row.id, site=holder) for holder in holders)
    # News of a copy whose artifact has not come yet is in no set.
    SiteLocation.objects.create(artifact_id=uuid.uuid4(), site=site)
    seen = 0
    for _ in range(80):
        scope = Scope(dice.choice(list(Kind)), site.id, random_filter(dice))
        chosen = members(rows, stored, scope)
        depth, prefixes = dice.randrange(4), dice.choice([[], ["3"], ["0", "7f", "7", "7"], SOME_IDS])
        expected = [row for row in chosen if row.id.hex.startswith(tuple(prefixes) or "")]
        tree = tree_of([(row.id, row.meta_checksum) for row in expected], depth)
        assert queries.read_tree(scope, depth=depth, prefixes=prefixes).tree == tree
        listed = sorted(Listed(row.id, row.meta_checksum) for row in expected)
        assert all_listed(scope, prefixes or [""]) == listed
        seen += len(listed)
    assert seen > 500


def test_a_part_with_as_many_locations_as_artifacts_is_not_taken_for_stored(
    inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_ROLE = "global"
    site = StorageSite.objects.create(resource_id="ivo://a", name="a", last_modified=artifact_row().last_modified)
    here, elsewhere, early = (uuid.UUID(f"abc{number}".ljust(32, "0")) for number in range(3))
    rows = [artifact_row(f"cadc:A/{identity}", id=identity) for identity in (here, elsewhere)]
    for row in rows:
        insert_artifact_row(row, None)
    SiteLocation.objects.bulk_create(SiteLocation(artifact_id=identity, site=site) for identity in (here, early))
    scope = Scope(Kind.STORED, site.id)
    assert queries.read_tree(scope, depth=3).tree == tree_of([(here, rows[0].meta_checksum)], 3)


def all_listed(scope: Scope, prefixes: list[str]) -> list[Listed]:
    found: list[Listed] = []
    while True:
        after = found[-1].artifact_id if found else None
        page = queries.read_listing(scope, prefixes=prefixes, after=after, limit=7)
        found += page.rows
        if not page.more:
            return found


def test_words_are_added_modulo_their_size() -> None:
    checksums = [event_meta_checksum(uuid.UUID(int=number), None) for number in range(40)]
    total = sum(word_of(checksum) for checksum in checksums)
    assert total > 2**64
    rows = [(uuid.UUID(int=number), checksum) for number, checksum in enumerate(checksums)]
    assert tree_of(rows, 5) == {"00000": Digest(40, total % 2**64)}


@pytest.mark.parametrize(
    ("uri", "matches"),
    [("a:x", True), ("a:B/x", False), ("a:B/C/x", True), ("a:B/C/D/x", True), ("b:x", False), ("a:BC/x", True)],
)
def test_the_longest_namespace_decides(uri: str, *, matches: bool) -> None:
    chosen = Filter((Namespace.parse("a:"), Namespace.parse("a:B/C/")), (Namespace.parse("a:B/"),))
    assert chosen.matches(uri) is matches


Ids = st.one_of(st.uuids(), st.builds(uuid.UUID, int=st.integers(0, 2**20)))
Rows = st.dictionaries(Ids, st.booleans(), max_size=60)


def listed(identity: uuid.UUID, *, is_changed: bool) -> Listed:
    return Listed(identity, event_meta_checksum(identity, "changed" if is_changed else None))


@given(ours=Rows, theirs=Rows, common=Rows, depth=st.integers(1, 32))
def test_what_differs_is_found_by_its_id(
    ours: dict[uuid.UUID, bool], theirs: dict[uuid.UUID, bool], common: dict[uuid.UUID, bool], depth: int
) -> None:
    here = sorted(listed(key, is_changed=flag) for key, flag in (common | ours).items())
    there = sorted(listed(key, is_changed=flag) for key, flag in (common | theirs).items())
    trees = [tree_of([(row.artifact_id, row.meta_checksum) for row in rows], depth) for rows in (here, there)]
    prefixes = differing(*trees)
    assert prefixes == sorted({row.artifact_id.hex[:depth] for row in set(here) ^ set(there)})
    assert set(different_rows(here, there)) == {row.artifact_id for row in set(here) ^ set(there)}
    assert whole_of(trees[0]) == tree_of([(row.artifact_id, row.meta_checksum) for row in here], 0)
    body = wire.answer(wire.TREE_MARK, "e" * 16, 7, tree_lines(trees[0]))
    assert wire.parse_tree("peer", body, depth=depth, prefixes=[]) == ("e" * 16, trees[0])
    body = wire.answer(wire.LISTING_MARK, "e" * 16, 7, wire.listing_lines(here), "0")
    assert wire.parse_listing("peer", body, prefixes=[""], after=None) == ("e" * 16, here, False)


def test_an_end_that_speaks_another_version_is_named_and_not_believed() -> None:
    body = wire.answer(wire.TREE_MARK, "e" * 16, 7, b"").replace(b"\t2\t", b"\t1\t", 1)
    with pytest.raises(RemoteProtocolError, match="peer speaks version 1 of reconcile, and this inventory 2: upgrade"):
        wire.parse_tree("peer", body, depth=1, prefixes=[])


@given(st.lists(st.text("ab", max_size=3), max_size=4), st.integers(0, 2))
def test_the_parts_of_a_tree_cover_what_is_under_its_prefixes_once(prefixes: list[str], depth: int) -> None:
    parts = parts_of(depth, prefixes)
    assert len(parts) <= count_parts(depth, prefixes)
    ranges = [id_range(part) for part in parts]
    assert all(high < low for (_, high), (low, _) in pairwise(ranges))
    under = {
        "".join(digits) for digits in product("abc", repeat=3) if "".join(digits).startswith(tuple(prefixes) or "")
    }
    covered = {digits for digits in under if any(low <= id_range(digits)[0] <= high for low, high in ranges)}
    assert covered == under
    assert all(part.startswith(tuple(prefixes) or "") and len(part) >= depth for part in parts)


def test_many_rows_under_few_prefixes_are_divided_by_several_digits_at_once() -> None:
    def tree(*prefixes: str, count: int) -> Tree:
        return {prefix: Digest(count, 1) for prefix in prefixes}

    assert next_depth(["018"], tree("018", count=10_000_000), {}) == 6
    assert next_depth(["018"], tree("018", count=500_000), tree("018", count=1)) == 5
    assert next_depth(["018"], {}, tree("018", count=2_500)) == 4
    many = [f"{number:03x}" for number in range(100)]
    assert next_depth(many, tree(*many, count=10_000_000), {}) == 4
    assert next_depth(["0" * 31], tree("0" * 31, count=10_000_000), {}) == 32


@pytest.mark.parametrize(
    ("count", "digits"), [(0, 0), (10**8, 0), (10**8 + 1, 1), (16 * 10**8, 1), (10**10, 2), (10**12, 4)]
)
def test_no_section_has_more_rows_than_a_scan_may_take(count: int, digits: int) -> None:
    assert section_digits(count) == digits
    assert count // 16**digits <= 10**8


def test_a_prefix_that_one_side_has_not_at_all_is_listed_and_not_divided() -> None:
    one: Tree = {"ab": Digest(1000, 1)}
    assert worth_descending("ab", one, {"ab": Digest(1, 1)})
    assert not worth_descending("ab", one, {})
    assert not worth_descending("ab", {"ab": Digest(3, 1)}, {"ab": Digest(3, 2)})
    whole_id = "abcdef01" * 4
    assert not worth_descending(whole_id, {whole_id: Digest(1000, 1)}, {whole_id: Digest(1000, 2)})


@given(st.dictionaries(st.text("01", min_size=2, max_size=2), st.integers(1, 5000), min_size=1))
def test_groups_of_listings_cover_every_prefix_once(sizes: dict[str, int]) -> None:
    tree = {prefix: Digest(count, 0) for prefix, count in sizes.items()}
    groups = listing_groups(sorted(tree), tree, {}, rows=100, most=9)
    flat = [prefix for group in groups for prefix in group]
    assert sum(16 ** (5 - len(prefix)) for prefix in flat) == 16**3 * len(tree)
    assert all(prefix.startswith(tuple(tree)) for prefix in flat)
    assert len(set(flat)) == len(flat)
    assert max(map(len, groups)) <= 9
    assert total_of(tree) == sum(sizes.values())
