"""What users, operators, time and misfortune do to a federation, and what must be true of it when the dust has settled.

The truth is a dictionary: for each uri the contents that may be read in the end (None: nothing), nearly always exactly one. It
learns from answers and from what the acting inventory has committed, never from what another one has made of it:

- A PUT makes a version; it ends the one that the site knew. A DELETE ends the one that the site knew. What was killed in the
  middle has either happened or not.
- Of several living versions of a uri the one with the greatest (contentLastModified, id) wins (`rules.is_winner`).
- The same content put again after a deletion elsewhere (by both clocks) lives on.
- Where the order of harvests decides (a version that is dead now may have won before it died), either outcome will do, but the
  same everywhere.
"""

from __future__ import annotations

import hashlib
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.faults import flip_bit
from tests.model.world import ALL, GLOBAL, SITES, Crashed, Held, World

NAMESPACES = ("cadc:A/", "cadc:B/")
URIS = tuple(f"{namespace}{name}" for namespace in NAMESPACES for name in ("x", "y"))
CONTENTS = ("a", "b" * 700, "ccc", "ddd")
_DAY = 86_400.0
_NEVER = (datetime.min.replace(tzinfo=UTC), 0)

_sites = st.sampled_from(SITES)
_everybody = st.sampled_from(ALL)
_uris = st.sampled_from(URIS)
_contents = st.sampled_from(CONTENTS)
# Most acts end; a crash comes before one of their steps.
_crashes = st.one_of(st.none(), st.none(), st.integers(0, 60))
_faults = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "/harvest/",
                "/harvest/artifacts",
                "/harvest/deleted-artifacts",
                "/harvest/rows",
                "/harvest/tree",
                "/files/",
            ]
        ),
        st.sampled_from(["lost", "cut", "bent", "earlier", "whole"]),
        st.integers(0, 2000),
    ),
    min_size=1,
    max_size=4,
)
# What lies more than a day ahead of an inventory's own clock is set aside by it, with an alarm; so clocks differ by less.
_clocks = st.sampled_from([-40_000, -3600, -2, 0, 2, 3600, 40_000])


def checksum(content: str) -> str:
    return "md5:" + hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


_BY_CHECKSUM = {checksum(content): content for content in CONTENTS}


@dataclass(frozen=True, slots=True)
class Version:
    """Content that was acknowledged, or committed by who then crashed."""

    artifact_id: str
    content: str
    content_last_modified: datetime


@dataclass(slots=True)
class Truth:
    """What is known of one uri."""

    living: dict[str, Version] = field(default_factory=dict)
    dead: dict[str, Version] = field(default_factory=dict)
    # (site, artifact id, when) of content that was put again. Only that site knows, and only while it has the bytes.
    reaffirmed: list[tuple[str, str, datetime]] = field(default_factory=list)
    # Sites that may have let their copies go since.
    retiring: set[str] = field(default_factory=set)
    ended_at: dict[str, datetime] = field(default_factory=dict)
    contents: set[str] = field(default_factory=set)

    def outcomes(self) -> set[str | None]:
        """What may be read in the end."""
        if any(site in self.retiring for site, _, _ in self.reaffirmed):
            return {None, *self.contents}
        candidates = {self._rank(version): version.content for version in self.living.values()}
        for artifact_id, version in self.dead.items():
            if self._reaffirmed_at(artifact_id) > self.ended_at[artifact_id]:
                candidates[self._rank(version)] = version.content
        beaten = max(candidates, default=_NEVER)
        # A dead version that would have beaten the winner may have done so while it lived.
        if any(self._rank(version) > beaten for version in self.dead.values()) and candidates:
            return {None, *self.contents}
        return {candidates.get(beaten)}

    def _rank(self, version: Version) -> tuple[datetime, int]:
        """Content that was put again counts as of then: where that is known it gets a new id when it would lose."""
        when = max(version.content_last_modified, self._reaffirmed_at(version.artifact_id))
        return when, uuid.UUID(version.artifact_id).int

    def _reaffirmed_at(self, artifact_id: str) -> datetime:
        return max((when for _, one, when in self.reaffirmed if one == artifact_id), default=_NEVER[0])

    def settled(self, held: Held | None, here: dict[str, Held | None]) -> None:
        """From now on only this is known of it, everywhere; and to a site by itself, that the content was put again there."""
        content = _BY_CHECKSUM[held.checksum] if held is not None else ""
        self.living = (
            {} if held is None else {held.artifact_id: Version(held.artifact_id, content, held.content_last_modified)}
        )
        self.dead.clear()
        self.ended_at.clear()
        self.retiring.clear()
        self.reaffirmed = [
            (site, copy.artifact_id, copy.reaffirmed_at)
            for site, copy in here.items()
            if copy is not None and copy.reaffirmed_at is not None and copy.storage_id is not None
        ]


class FederationMachine(RuleBasedStateMachine):
    """Two sites and a global. `world` is set by the test; steps are counted over all examples."""

    world: ClassVar[World]
    steps: ClassVar[int] = 0
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.world.reset()
        self.truth = {uri: Truth() for uri in URIS}
        self.wanted: dict[str, set[str]] = {name: set() for name in SITES}
        # Where bytes may be because they were put there, or wanted there, at some time.
        self.may_hold: set[tuple[str, str]] = set()
        # Sites in whose store objects may be that no row names: somebody was killed there, or an old backup came back.
        self.has_strays: set[str] = set()
        # Of which a copy may be damaged; and those whose damaged bytes may have been the last.
        self.rotten: set[str] = set()
        self.once_rotten: set[str] = set()
        self.hopeless: set[str] = set()
        # Where a copy may have been retired: the site still knows what it neither has nor wants.
        self.retired: set[tuple[str, str]] = set()
        self.forgetful: set[str] = set()
        self.backups: dict[str, set[str]] = {}
        self.is_settled = True
        self.ahead = dict.fromkeys(ALL, 0)

    @initialize(
        wanted=st.lists(st.tuples(_sites, st.sampled_from(NAMESPACES)), max_size=4),
        placed=st.lists(st.tuples(_sites, _uris, _contents), max_size=4),
    )
    def begin(self, wanted: list[tuple[str, str]], placed: list[tuple[str, str, str]]) -> None:
        """A federation that has a past."""
        for site, namespace in wanted:
            self.policy(site, namespace, wanted=True)
        for site, uri, content in placed:
            self.put(site, uri, content, None)

    @property
    def has_content(self) -> bool:
        return any(truth.contents for truth in self.truth.values())

    # --- users

    @rule(site=_sites, uri=_uris, content=_contents, crash=_crashes)
    def put(self, site: str, uri: str, content: str, crash: int | None) -> None:
        before = self._begin(site, uri)
        status = self.world.do(site, "put", crash, uri=uri, content=content)
        after = self.world.look(site, uri)
        truth = self.truth[uri]
        if isinstance(status, Crashed):
            self.has_strays.add(site)
        else:
            assert status == 201
            assert after is not None
            assert after.storage_id is not None
            assert after.checksum == checksum(content)
        self.may_hold.add((site, uri))
        truth.contents.add(content)
        self._learn(site, uri, before, after)

    @rule(site=_sites, uri=_uris, content=_contents)
    def put_whole(self, site: str, uri: str, content: str) -> None:
        """Mostly nothing goes wrong."""
        self.put(site, uri, content, None)

    @rule(uri=_uris, contents=st.tuples(_contents, _contents))
    def put_both(self, uri: str, contents: tuple[str, str]) -> None:
        """At both sites before either hears of the other."""
        for site, content in zip(SITES, contents, strict=True):
            self.put(site, uri, content, None)

    @precondition(lambda self: self.has_content)
    @rule(site=_sites, uri=_uris, crash=_crashes)
    def delete(self, site: str, uri: str, crash: int | None) -> None:
        before = self._begin(site, uri)
        status = self.world.do(site, "delete", crash, uri=uri)
        after = self.world.look(site, uri)
        if not isinstance(status, Crashed):
            assert status == (404 if before is None else 204), status
            assert after is None
        self._learn(site, uri, before, after)

    @precondition(lambda self: self.has_content)
    @rule(site=_sites, uri=_uris, replaces=st.booleans(), crash=_crashes)
    def undelete(self, site: str, uri: str, replaces: bool, crash: int | None) -> None:
        before = self._begin(site, uri)
        answer = self.world.do(site, "undelete", crash, uri=uri, replaces=replaces)
        after = self.world.look(site, uri)
        if not isinstance(answer, Crashed) and "refused" in answer:
            assert before == after
        elif uri in self.once_rotten or site in self.forgetful:
            # Retained bytes are not read again before they are served.
            self.rotten.add(uri)
            self.hopeless.add(uri)
        self._learn(site, uri, before, after)

    def _begin(self, site: str, uri: str) -> Held | None:
        self._step()
        self.is_settled = False
        return self.world.look(site, uri)

    def _learn(self, site: str, uri: str, before: Held | None, after: Held | None) -> None:
        """What a site has made of a uri by itself."""
        truth = self.truth[uri]
        if before is not None and (after is None or after.artifact_id != before.artifact_id):
            self._end(site, truth, before)
        if after is None:
            return
        if before is None or after.artifact_id != before.artifact_id:
            assert after.artifact_id not in truth.dead, "an id has returned"
            assert before is None or after.content_last_modified > before.content_last_modified
            content = _BY_CHECKSUM[after.checksum]
            assert content in truth.contents
            truth.living[after.artifact_id] = Version(after.artifact_id, content, after.content_last_modified)
            self.may_hold.add((site, uri))
        elif after.reaffirmed_at is not None and after.reaffirmed_at != before.reaffirmed_at:
            truth.reaffirmed.append((site, after.artifact_id, after.reaffirmed_at))
        elif after.storage_id != before.storage_id:
            # Retained bytes were attached again: nothing was said that outlives a deletion elsewhere.
            self.may_hold.add((site, uri))

    def _end(self, site: str, truth: Truth, before: Held) -> None:
        version = truth.living.pop(before.artifact_id, None)
        content = _BY_CHECKSUM[before.checksum]
        version = version or Version(before.artifact_id, content, before.content_last_modified)
        truth.dead[before.artifact_id] = version
        ((ended_at,),) = self.world.nodes[site].query(
            "SELECT deleted_at FROM deleted_artifact_event WHERE id = %s", before.artifact_id
        )
        truth.ended_at[before.artifact_id] = min(ended_at, truth.ended_at.get(before.artifact_id, ended_at))
        truth.reaffirmed = [one for one in truth.reaffirmed if one[:2] != (site, before.artifact_id)]

    # --- operators

    @rule(site=_sites, namespace=st.sampled_from(NAMESPACES), wanted=st.booleans())
    def policy(self, site: str, namespace: str, wanted: bool) -> None:
        self._step()
        self.is_settled = False
        self.world.do(site, "policy", namespace=namespace, wanted=wanted)
        if wanted:
            self.wanted[site].add(namespace)
            self.may_hold |= {(site, uri) for uri in URIS if uri.startswith(namespace)}
        else:
            self.wanted[site].discard(namespace)

    @precondition(lambda self: self.has_content)
    @rule(site=_sites, namespace=st.sampled_from(NAMESPACES), crash=_crashes)
    def retire(self, site: str, namespace: str, crash: int | None) -> None:
        """Copies go, those that all globals let go; what the site's own policy wants stays. What cannot be asked now goes on later."""
        self._step()
        self.is_settled = False
        before, wanted = self._stored(site), tuple(self.wanted[site])
        answer = self.world.do(site, "retire", crash, namespace=namespace)
        gone = before - self._stored(site)
        self.world.count("copy retired", len(gone))
        assert all(uri.startswith(namespace) for uri in gone), (site, namespace, gone)
        assert not any(uri.startswith(wanted) for uri in gone), (site, gone, "is wanted")
        assert isinstance(answer, Crashed) or answer["dropped"] >= len(gone), (answer, gone)
        told = {uri for uri in URIS if uri.startswith(namespace)}
        self.retired |= {(site, uri) for uri in told}
        for uri in told:
            self.truth[uri].retiring.add(site)
        # Whoever vouches for the other copy does not know that a bit of it has flipped since it was read.
        self.hopeless |= self.rotten & told

    @precondition(lambda self: self.has_content)
    @rule(site=_sites, namespace=st.sampled_from(NAMESPACES), crash=_crashes)
    def retire_what_another_wants(self, site: str, namespace: str, crash: int | None) -> None:
        """When the other site has everything, all of it may go."""
        (other,) = set(SITES) - {site}
        self.policy(other, namespace, wanted=True)
        self.policy(site, namespace, wanted=False)
        self.check()
        self.retire(site, namespace, crash)
        left = {uri for uri in self._stored(site) if uri.startswith(namespace)}
        assert crash is not None or left <= self.hopeless, (site, namespace, left)

    def _stored(self, site: str) -> set[str]:
        return {uri for uri, held in self.world.artifacts(site).items() if held.storage_id is not None}

    # --- time and misfortune

    @rule(name=_everybody, crash=_crashes)
    def harvest(self, name: str, crash: int | None) -> None:
        self._step()
        self.is_settled = False
        self.world.wait(name)
        answer = self.world.do(name, "harvest", crash, names=list(SITES) if name == GLOBAL else [GLOBAL])
        assert isinstance(answer, Crashed) or "refused" in answer or not answer["rejected"], answer

    @rule(site=_sites, crash=_crashes)
    def sync(self, site: str, crash: int | None) -> None:
        self._step()
        self.world.wait(site)
        if isinstance(self.world.do(site, "sync", crash), Crashed):
            self.has_strays.add(site)

    @rule(name=_everybody)
    def rewind(self, name: str) -> None:
        """Everything is heard once more."""
        self._step()
        self.is_settled = False
        self.world.do(name, "rewind")

    @rule(name=_everybody, site=_sites, mode=st.sampled_from(["report", "add", "all"]), crash=_crashes)
    def reconcile(self, name: str, site: str, mode: str, crash: int | None) -> None:
        self._step()
        self.is_settled = False
        self.world.wait(name)
        self.world.do(name, "reconcile", crash, remote=site if name == GLOBAL else GLOBAL, mode=mode)

    @rule(name=_everybody, faults=_faults)
    def trouble(self, name: str, faults: list[tuple[str, str, int]]) -> None:
        """The network is bad for a while in front of an inventory."""
        self._step()
        self.world.trouble(name, faults)

    @rule(name=_everybody, ahead=_clocks)
    def clock(self, name: str, ahead: int) -> None:
        self._step()
        self.world.clock(name, ahead)
        self.ahead[name] = ahead

    @precondition(lambda self: self.is_settled and self.has_content)
    @rule(site=_sites, uri=_uris, place=st.integers(0, 2000))
    def rot(self, site: str, uri: str, place: int) -> None:
        """A bit of one of two good copies flips."""
        self._step()
        copies = {name: self.world.look(name, uri) for name in SITES}
        if not all(copy is not None and copy.storage_id is not None for copy in copies.values()):
            return
        here = copies[site]
        assert here is not None
        assert here.storage_id is not None
        path = self.world.file(site, here.storage_id)
        flip_bit(path, place % path.stat().st_size)
        self.is_settled = False
        self.rotten.add(uri)
        self.once_rotten.add(uri)

    @rule(site=_sites, crash=_crashes)
    def scrub(self, site: str, crash: int | None) -> None:
        self._step()
        self.is_settled = False
        self.world.wait(site)
        self.world.do(site, "verify", crash)

    @rule(site=_sites, crash=_crashes)
    def validate(self, site: str, crash: int | None) -> None:
        self._step()
        self.is_settled = False
        self.world.wait(site)
        done = self.world.do(site, "validate", crash, believed="InventoryIsAlwaysRight")
        if isinstance(done, Crashed):
            self.has_strays.add(site)
        elif not self.ahead[site]:
            # All are accounted for now; a clock that goes wrong may make them look as if they had come a moment ago.
            self.has_strays.discard(site)

    @rule(site=_sites, crash=_crashes)
    def purge(self, site: str, crash: int | None) -> None:
        """A month later, for as long as it takes."""
        self._step()
        self.is_settled = False
        self.world.clock(site, 30 * _DAY)
        self.world.do(site, "purge", crash)
        self.world.clock(site, self.ahead[site])

    @rule(name=_everybody)
    def backup(self, name: str) -> None:
        self._step()
        self.world.backup(name, "old")
        self.backups[name] = set(self.wanted.get(name, ()))

    @precondition(lambda self: self.backups)
    @rule(name=_everybody, crash=_crashes)
    def restore(self, name: str, crash: int | None) -> None:
        """An old backup comes back, in the order that loses nothing; what everybody knew before, everybody knows after.

        Each step may be killed; then it is done again.
        """
        self._step()
        if name not in self.backups:
            return
        self.check()
        self.world.restore(name, "old")
        self.world.do(name, "restamp")
        self.world.serve([name])
        peers = list(SITES) if name == GLOBAL else [GLOBAL]
        self.world.wait(name)
        self._surely(name, "regain", crash)
        if name in SITES:
            self.wanted[name] = set(self.backups[name])
            self.has_strays.add(name)
            # What is said there to be retained may have been removed since.
            self.forgetful.add(name)
            # Damage that was found and mended since is as unknown as before: scrub finds it again.
            self.rotten |= self.once_rotten
            self._surely(name, "recover", crash)
            self._surely(name, "compare_store", crash)
        for peer in peers:
            self.world.do(peer, "reconcile", remote=name, mode="all")
        self.check()

    def _surely(self, name: str, act: str, crash: int | None) -> None:
        if isinstance(self.world.do(name, act, crash), Crashed):
            self.world.wait(name)
            self.world.do(name, act)

    @precondition(lambda self: not self.is_settled)
    @rule()
    def settle(self) -> None:
        self._step()
        self.check()

    def _step(self) -> None:
        type(self).steps += 1

    # --- what must be true

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.check()

    def check(self) -> None:
        """Let the dust settle, and compare everything with the truth."""
        if self.rotten:
            for site in SITES:
                self.world.wait(site)
            self.world.do_all("verify", {site: {} for site in SITES})
            self.rotten.clear()
        self.world.settle()
        if self.world.going():
            # Of a question that came through after its end, or before an old backup came back.
            self.world.do_all("give_back", {site: {} for site in SITES})
            self.world.settle()
        at_global = self.world.artifacts(GLOBAL)
        for uri in URIS:
            self._check_outcome(uri, at_global.get(uri))
        assert at_global.keys() <= set(URIS)
        seen = self.world.do_all("look", {site: {"uris": list(URIS)} for site in SITES})
        for site in SITES:
            self._check_site(site, at_global, seen[site])
        self._check_holders(at_global)
        self._check_events()
        for uri in URIS:
            self.truth[uri].settled(at_global.get(uri), {site: self.world.look(site, uri) for site in SITES})
        self.is_settled = True

    def _check_outcome(self, uri: str, held: Held | None) -> None:
        content = _BY_CHECKSUM[held.checksum] if held is not None else None
        truth = self.truth[uri]
        assert content in truth.outcomes(), (uri, held, truth)

    def _check_site(self, site: str, at_global: dict[str, Held], seen: dict[str, Any]) -> None:
        known = self.world.artifacts(site)
        stored = {uri for uri, held in known.items() if held.storage_id is not None}
        wanted = {uri for uri in at_global if uri.startswith(tuple(self.wanted[site]))}
        assert {uri: held.artifact_id for uri, held in known.items()} == {
            uri: at_global[uri].artifact_id for uri in known if uri in at_global
        }, (site, known, at_global)
        assert wanted <= stored | self.hopeless, (site, "lacks", wanted - stored)
        retired = {uri for name, uri in self.retired if name == site}
        useless = known.keys() - stored - self.hopeless - retired
        assert not useless, (site, "knows what it neither has nor wants", useless)
        assert {(site, uri) for uri in stored} <= self.may_hold
        expected = {uri: _BY_CHECKSUM[at_global[uri].checksum] if uri in stored else None for uri in URIS}
        assert seen["read"] == expected, (site, seen["read"], expected)
        self._check_store(site, known, {one[0]: one for one in seen["objects"]})

    def _check_store(self, site: str, known: dict[str, Held], objects: dict[str, Any]) -> None:
        """No row without bytes; and no bytes without row, but for what somebody who was killed has left."""
        assert {held.storage_id for held in known.values() if held.storage_id} <= objects.keys()
        if site in self.has_strays:
            return
        kept = {
            row[0]
            for row in self.world.nodes[site].query(
                """SELECT storage_id FROM storage_location UNION SELECT storage_id FROM obsolete_storage_location
                   UNION SELECT storage_id FROM retired_artifact WHERE state IN ('retained', 'removing')
                   UNION SELECT storage_id FROM damaged_copy WHERE state <> 'released'
                   UNION SELECT storage_id FROM quarantined_object WHERE state IN ('quarantined', 'removing')"""
            )
        }
        assert objects.keys() <= kept, (site, [objects[one] for one in objects.keys() - kept])

    def _check_holders(self, at_global: dict[str, Held]) -> None:
        held = {
            artifact.artifact_id: {
                site
                for site in SITES
                if (here := self.world.look(site, uri)) is not None and here.storage_id is not None
            }
            for uri, artifact in at_global.items()
        }
        lost = {uri for uri, artifact in at_global.items() if not held[artifact.artifact_id]}
        assert lost <= self.hopeless, ("nobody has", lost)
        assert not self.world.going()
        said = self.world.holders()
        assert {one: sites for one, sites in held.items() if sites} == said, (held, said)
        redirects = self.world.do(GLOBAL, "redirect", uris=list(URIS))
        expected = {uri: 303 if uri in at_global and held[at_global[uri].artifact_id] else 404 for uri in URIS}
        assert redirects == expected, (redirects, expected)

    def _check_events(self) -> None:
        """Events are states: what is said to be gone is gone, what is said to be here is here."""
        for node in self.world.nodes.values():
            assert not node.query("SELECT d.id FROM deleted_artifact_event d JOIN artifact a ON a.id = d.id")
            assert not node.query(
                "SELECT e.id FROM storage_location_event e JOIN deleted_storage_location_event d ON d.id = e.id"
            )
            assert not node.query(
                """SELECT e.id FROM storage_location_event e LEFT JOIN storage_location l ON l.artifact_id = e.id
                   WHERE l.artifact_id IS NULL"""
            )
            assert not node.query("SELECT id FROM harvest_rejection")
