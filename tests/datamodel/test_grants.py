"""Pure rules of rights: tables, and the two forms of a decision (one uri, ranges) say the same."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from datamodel.grants import (
    ALL_GRANTS,
    ROLE_GRANTS,
    AccessTable,
    Grant,
    Identity,
    Limits,
    Role,
    Rule,
    is_principal,
    prefixes_of,
)
from datamodel.reach import END, EVERYWHERE, NOWHERE, Reach
from datamodel.uris import Namespace

ALICE = Identity(frozenset({"*", "user:alice", "group:astro"}))
BOB = Identity(frozenset({"*", "user:bob"}))
NOBODY = Identity()


def rule(prefix: str, *, anonymous: bool = False, replaces: bool = False, **allowed: str) -> Rule:
    return Rule(prefix, anonymous, {Grant(name): frozenset(words.split()) for name, words in allowed.items()}, replaces)


def table(*rules: Rule, roles: dict[str, frozenset[Role]] | None = None) -> AccessTable:
    return AccessTable({found.prefix: found for found in rules}, roles or {})


OPEN = rule("", anonymous=True)
PUBLIC = rule("cadc:", anonymous=True, write="group:astro")
PRIVATE = rule("cadc:P/", replaces=True, read="user:bob")
DEEPER = rule("cadc:P/open/", anonymous=True)
KNOWN = rule("known:", read="*")
HARVESTED = rule("cadc:P/", harvest="token:peer")

TABLE = [
    ("nothing is granted", table(), ALICE, Grant.READ, "cadc:x", False),
    ("anyone reads everything", table(OPEN), NOBODY, Grant.READ, "x:y", True),
    ("anonymous_read is for reading only", table(OPEN), NOBODY, Grant.WRITE, "x:y", False),
    ("anonymous reads where it is granted", table(PUBLIC), NOBODY, Grant.READ, "cadc:x", True),
    ("and nowhere else", table(PUBLIC), NOBODY, Grant.READ, "cadcx:x", False),
    ("a group writes", table(PUBLIC), ALICE, Grant.WRITE, "cadc:a/b", True),
    ("who is not in the group does not", table(PUBLIC), BOB, Grant.WRITE, "cadc:a/b", False),
    ("a writer does not delete", table(PUBLIC), ALICE, Grant.DELETE, "cadc:a/b", False),
    ("a writer reads", table(rule("cadc:", write="group:astro")), ALICE, Grant.READ, "cadc:x", True),
    ("a harvester does not read", table(rule("cadc:", harvest="group:astro")), ALICE, Grant.READ, "cadc:x", False),
    ("a longer prefix adds", table(rule("cadc:", read="user:bob"), rule("cadc:A/", read="group:astro")), BOB, Grant.READ, "cadc:A/x", True),
    ("a longer prefix replaces", table(PUBLIC, PRIVATE), ALICE, Grant.READ, "cadc:P/x", False),
    ("for writing too", table(PUBLIC, PRIVATE), ALICE, Grant.WRITE, "cadc:P/x", False),
    ("and for anonymous callers", table(OPEN, PUBLIC, PRIVATE), NOBODY, Grant.READ, "cadc:P/x", False),
    ("beside it nothing changes", table(PUBLIC, PRIVATE), NOBODY, Grant.READ, "cadc:P", True),
    ("what replaces grants itself", table(PUBLIC, PRIVATE), BOB, Grant.READ, "cadc:P/x", True),
    ("below it one may add again", table(PUBLIC, PRIVATE, DEEPER), NOBODY, Grant.READ, "cadc:P/open/x", True),
    ("which adds to what replaced", table(PUBLIC, PRIVATE, DEEPER), ALICE, Grant.WRITE, "cadc:P/open/x", False),
    ("anybody known", table(KNOWN), BOB, Grant.READ, "known:x", True),
    ("is not anonymous", table(KNOWN), NOBODY, Grant.READ, "known:x", False),
    ("operate is not granted by namespace", table(Rule("", allowed={Grant.OPERATE: frozenset({"*"})})), ALICE, Grant.OPERATE, "a:b", False),
    ("a credential's own right is not replaced", table(PRIVATE), Identity(grants=frozenset({Grant.READ})), Grant.READ, "cadc:P/x", True),
    ("a role's right is not replaced", table(PRIVATE, roles={"group:astro": frozenset({Role.FILE_SYNC_OPERATOR})}), ALICE, Grant.READ, "cadc:P/x", True),
    ("file-sync operators do not write", table(PUBLIC, PRIVATE, roles={"group:astro": frozenset({Role.FILE_SYNC_OPERATOR})}), ALICE, Grant.WRITE, "cadc:P/x", False),
    ("limits cut a right", table(), Identity(grants=ALL_GRANTS, limits=Limits.within(["cadc:A/"])), Grant.READ, "cadc:B/x", False),
    ("and leave the rest", table(), Identity(grants=ALL_GRANTS, limits=Limits.within(["cadc:A/"])), Grant.READ, "cadc:A/x", True),
    ("limits grant nothing", table(), Identity(limits=Limits.within(["cadc:A/"])), Grant.READ, "cadc:A/x", False),
    ("limits cut what rules grant", table(OPEN), Identity(limits=Limits.within(["cadc:A/"])), Grant.READ, "cadc:B/x", False),
    ("and what roles grant", table(roles={"user:alice": frozenset({Role.ARCHIVE_OPERATOR})}), Identity(frozenset({"user:alice"}), limits=Limits.within(["a:"])), Grant.READ, "b:x", False),
    ("a right that limits do not name is gone", table(OPEN), Identity(limits=Limits(((Grant.WRITE, EVERYWHERE),))), Grant.READ, "b:x", False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "who", "grant", "uri", "verdict"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_decisions(rules: AccessTable, who: Identity, grant: Grant, uri: str, verdict: bool) -> None:
    assert (uri in rules.reach(who, grant)) is verdict


def test_every_role_has_its_rights_everywhere_and_no_other() -> None:
    assert len(ROLE_GRANTS) == len(Role)
    for role, grants in ROLE_GRANTS.items():
        roles = table(roles={"user:alice": frozenset({role})})
        held = {grant for grant in Grant if roles.reach(ALICE, grant).is_everything}
        assert held == grants
        assert not any(roles.reach(BOB, grant) for grant in Grant)


@pytest.mark.parametrize(
    "text", ["*", "user:alice", "group:/wlcg/prod", "token:a b", "issuer:iam", "dn:CN=A/O=B", "user:é"]
)
def test_principals(text: str) -> None:
    assert is_principal(text)


@pytest.mark.parametrize(
    "text", ["", "alice", "user:", "user: a", "user:a ", "user:a,b", "**", "*x", "role:x", "user:a\nb"]
)
def test_what_is_no_principal(text: str) -> None:
    assert not is_principal(text)


# --- properties

PARTS = st.sampled_from(["a", "b", "a/", "b/", ":", "~", "0"])
PREFIXES = st.sampled_from(["", "a:", "b:", "a:a/", "a:b/", "a:a/a/", "a:a/b/", "a:ab/", "a:b:", "ab:"])
URIS = st.builds(
    lambda scheme, parts: f"{scheme}:{''.join(parts)}x", st.sampled_from(["a", "b", "ab"]), st.lists(PARTS, max_size=5)
)
PRINCIPALS = st.frozensets(st.sampled_from(["user:alice", "group:astro", "*", "user:bob"]), max_size=2)
RULES = st.builds(
    Rule,
    PREFIXES,
    st.booleans(),
    st.dictionaries(st.sampled_from([Grant.READ, Grant.WRITE, Grant.HARVEST]), PRINCIPALS, max_size=2),
    st.booleans(),
)
TABLES = st.lists(RULES, max_size=6).map(lambda rules: table(*rules))


def decided_plainly(rules: AccessTable, who: Identity, grant: Grant, uri: str) -> bool:
    """The sentence of the README: longest first, each adds, one that replaces is the last."""
    for found in sorted((r for r in rules.rules.values() if uri.startswith(r.prefix)), key=lambda r: -len(r.prefix)):
        names = set(found.allowed.get(grant, ()))
        if grant is Grant.READ:
            names |= set(found.allowed.get(Grant.WRITE, ()))
            if found.anonymous_read:
                return True
        if names & who.principals:
            return True
        if found.replaces:
            return False
    return False


@given(TABLES, st.sampled_from([ALICE, BOB, NOBODY]), st.sampled_from([Grant.READ, Grant.WRITE]), URIS)
def test_the_reach_of_a_right_holds_exactly_the_uris_it_is_granted_for(
    rules: AccessTable, who: Identity, grant: Grant, uri: str
) -> None:
    assert (uri in rules.reach(who, grant)) is decided_plainly(rules, who, grant, uri)


@given(TABLES, RULES)
def test_a_rule_that_only_adds_never_takes_a_right_away(rules: AccessTable, added: Rule) -> None:
    if added.prefix in rules.rules or added.replaces:
        return
    more = AccessTable({**rules.rules, added.prefix: added})
    for who in (ALICE, NOBODY):
        before, after = rules.reach(who, Grant.READ), more.reach(who, Grant.READ)
        assert before & after == before


SETS = st.lists(PREFIXES, max_size=4).map(Reach.of_prefixes)


@given(SETS, SETS, URIS)
def test_reaches_are_sets(one: Reach, other: Reach, uri: str) -> None:
    assert (uri in one & other) is (uri in one and uri in other)
    assert (uri in one | other) is (uri in one or uri in other)
    assert one & EVERYWHERE == one
    assert one | NOWHERE == one
    assert not one & NOWHERE


@given(SETS)
def test_ranges_are_sorted_and_apart(reach: Reach) -> None:
    flat = [end for found in reach.ranges for end in found]
    assert flat == sorted(set(flat))


@given(SETS, PREFIXES, URIS)
def test_a_reach_covers_a_prefix_when_it_has_all_below_it(reach: Reach, prefix: str, uri: str) -> None:
    if reach.covers(prefix) and uri.startswith(prefix):
        assert uri in reach


@given(SETS, st.sampled_from(["", "a", "a:a/", "b:"]), st.sampled_from(["a:b", "b", END]), URIS)
def test_the_part_between_two_texts(reach: Reach, low: str, high: str, uri: str) -> None:
    inside = any(start <= uri < end for start, end in reach.within(low, high))
    assert inside is (uri in reach and low <= uri < high)


@given(URIS)
def test_the_prefixes_of_a_uri_are_namespaces_longest_first(uri: str) -> None:
    found = list(prefixes_of(uri))
    assert found[-1] == ""
    assert [len(prefix) for prefix in found] == sorted(map(len, found), reverse=True)
    for prefix in found[:-1]:
        assert uri.startswith(prefix)
        assert prefix[-1] in ":/"


def test_a_namespace_and_a_reach_agree_about_prefixes() -> None:
    assert Reach.of_prefixes([Namespace.parse("cadc:A/").value]).ranges == (("cadc:A/", "cadc:A0"),)
