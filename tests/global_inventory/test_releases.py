"""May a site drop its copy? Asked over HTTP; the other sites are fakes that confirm what they hold, the database is real."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
import urllib3
from django.test import Client
from pytest_django import Settings

from datamodel import auth
from datamodel.audit.models import AuditEntry
from datamodel.checksums import Checksum
from datamodel.models import RemoteInventory, SiteLocation, StorageSite
from datamodel.operations import delete_artifact
from datamodel.permissions import Grant
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from global_inventory.releases import metrics, operations, rules, views
from global_inventory.releases.models import ReleaseRule
from global_inventory.releases.operations import Release
from global_inventory.releases.rules import Holder, Outcome, Verdict
from global_inventory.sites.models import SiteSwitch
from tests import peers
from tests.fakes.site import FakeSite
from tests.global_inventory.conftest import Federation, Pair, confirm
from tests.harvest.crashes import crash_everywhere, everything

URI = "cadc:TEST/file.fits"
STORED_AT = "2026-11-21T04:00:00.000Z"


@pytest.fixture
def site_caller(pair: Pair) -> Client:
    """Alpha, known by its keys."""
    return peers.pair(pair[0]).client()


@pytest.fixture
def other_caller(pair: Pair) -> Client:
    """Beta."""
    return peers.pair(pair[1]).client()


def entry(row: ArtifactRow, release: uuid.UUID | None = None, **changes: object) -> dict[str, object]:
    return {
        "release": str(release or uuid.uuid4()),
        "id": str(row.id),
        "uri": row.uri,
        "digest": row.content_checksum,
        "storedAt": STORED_AT,
        **changes,
    }


def ask(
    client: Client, site: RemoteInventory, *entries: dict[str, object], path: str = "/releases", status: int = 200
) -> dict[str, Any]:
    body = json.dumps({"site": str(site.site_id), "files": entries})
    answer = client.post(path, body, content_type="application/json")
    assert answer.status_code == status, answer.content
    return dict(answer.json())


def outcome(client: Client, site: RemoteInventory, *entries: dict[str, object]) -> str:
    (answer,) = ask(client, site, *entries)["files"]
    assert answer["granted"] == (answer["reason"] is None)
    return "granted" if answer["granted"] else str(answer["reason"])


def marked(site: RemoteInventory) -> set[uuid.UUID]:
    return set(
        SiteLocation.objects.filter(site=site.site_id, releasing_at__isnull=False).values_list("artifact_id", flat=True)
    )


# --- the rule

ASKER, OTHER, THIRD, RELEASE = (uuid.UUID(int=number) for number in range(1, 5))
OWN = Holder(ASKER, None, is_usable=True)


@pytest.mark.parametrize(
    ("holders", "confirmed", "demanded", "expected"),
    [
        pytest.param([OWN], {ASKER}, 1, Verdict(Outcome.TOO_FEW_COPIES, 0, 1), id="the last copy stays"),
        pytest.param([OWN, Holder(OTHER, None, True)], {OTHER}, 1, Verdict(Outcome.GRANTED, 1, 1), id="another one remains"),
        pytest.param([OWN, Holder(OTHER, None, True)], set(), 1, Verdict(Outcome.NOT_CONFIRMED, 0, 1), id="silence counts not"),
        pytest.param(
            [OWN, Holder(OTHER, RELEASE, True)], {OTHER}, 1, Verdict(Outcome.TOO_FEW_COPIES, 0, 1), id="going ones count not"
        ),
        pytest.param([OWN, Holder(OTHER, None, False)], {OTHER}, 1, Verdict(Outcome.TOO_FEW_COPIES, 0, 1), id="nor unusable"),
        pytest.param([OWN], {OTHER}, 1, Verdict(Outcome.TOO_FEW_COPIES, 0, 1), id="nor those whose news were taken back"),
        pytest.param(
            [OWN, Holder(OTHER, None, True), Holder(THIRD, None, True)],
            {OTHER},
            2,
            Verdict(Outcome.NOT_CONFIRMED, 1, 2),
            id="one of two confirmed",
        ),
        pytest.param([Holder(OTHER, None, True)], {OTHER}, 1, Verdict(Outcome.COPY_UNKNOWN, 1, 1), id="a copy unknown here"),
        pytest.param([Holder(ASKER, RELEASE, True)], set(), 1, Verdict(Outcome.REPEATED, 0, 1), id="granted before"),
        pytest.param(
            [Holder(ASKER, THIRD, True)], set(), 1, Verdict(Outcome.TOO_FEW_COPIES, 0, 1), id="granted under another name"
        ),
    ],
)  # fmt: skip
def test_the_rule(holders: list[Holder], confirmed: set[uuid.UUID], demanded: int, expected: Verdict) -> None:
    verdict = rules.judge(
        site_id=ASKER, release_id=RELEASE, holders=holders, confirmed=frozenset(confirmed), demanded=demanded
    )
    assert verdict == expected
    assert verdict.is_granted == (expected.outcome in {Outcome.GRANTED, Outcome.REPEATED})


@pytest.mark.parametrize(
    ("uri", "expected"), [("cadc:A/b/c", 3), ("cadc:A/x", 2), ("cadc:B/x", 1), ("other:A/b/c", 1), ("cadc:A/bc", 2)]
)
def test_the_longest_namespace_says_how_many_must_remain(uri: str, expected: int) -> None:
    assert rules.demanded_copies(uri, {"cadc:A/b/": 3, "cadc:A/": 2}, 1) == expected


# --- the doors


def test_a_copy_may_go_when_another_site_confirms_its_own(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row)
    release = uuid.uuid4()
    answer = ask(site_caller, pair[0], entry(row, release))
    assert answer == {
        "site": str(pair[0].site_id),
        "files": [
            {"release": str(release), "id": str(row.id), "granted": True, "reason": None, "copies": 1, "demanded": 1}
        ],
    }
    assert marked(pair[0]) == {row.id}
    assert marked(pair[1]) == set()


def test_the_asking_site_is_not_asked(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, site_caller: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(alpha, row)
    assert outcome(site_caller, pair[0], entry(row)) == "not_confirmed"
    assert (alpha.questions, beta.questions) == ([], [[URI]])


def test_a_copy_that_may_go_is_neither_counted_nor_located_but_shown(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, site_caller: Client, operator: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(alpha, row)
    confirm(beta, row)
    assert outcome(site_caller, pair[0], entry(row)) == "granted"
    held = operator.post(
        "/held", json.dumps({"files": [{"uri": URI, "digest": row.content_checksum}]}), content_type="application/json"
    ).json()
    assert [site["site"] for site in held["files"][0]["sites"]] == ["beta"]
    for body in ({"uri": URI}, {"uris": [URI]}):
        located = operator.post("/locate", json.dumps(body), content_type="application/json").json()
        found = located["results"][0] if "uris" in body else located
        assert [url["site"] for url in found["urls"]] == ["beta"]
    redirect = operator.get(f"/files/{URI}")
    assert redirect.status_code == 303
    assert beta.url in redirect["Location"]
    assert alpha.url not in redirect.get("Link", "")
    listed = operator.get("/artifacts", {"uri": URI}).json()
    assert (listed["copies"], listed["releasing"]) == (["beta"], ["alpha"])
    explained = operator.get("/explain", {"uri": URI}).json()
    assert {copy["site"]: copy["releasing"] for copy in explained["copies"]} == {"alpha": True, "beta": False}
    assert [place["site"] for place in explained["ranking"]["get"]] == ["beta"]


def test_the_second_of_two_sites_is_refused(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, site_caller: Client, other_caller: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(alpha, row)
    confirm(beta, row)
    release = uuid.uuid4()
    assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    assert outcome(other_caller, pair[1], entry(row)) == "too_few_copies"
    # What was granted is one entry however often it is asked; each refusal says why, and who asked.
    outcome(site_caller, pair[0], entry(row, release))
    recorded = AuditEntry.objects.filter(action="retire").order_by("id")
    told = [(one.who, one.subject, one.outcome, one.reason, one.details) for one in recorded]
    assert told == [
        (ANY, f"copies at {pair[0].site_id}", "done", "", {"granted": 1, "uris": [URI]}),
        (ANY, f"copies at {pair[1].site_id}", "refused", "too_few_copies", {"refused": 1, "uris": [URI]}),
    ]
    assert told[0][0] != told[1][0]


def test_what_was_granted_is_granted_again_whatever_happened_since(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client
) -> None:
    row, release = federation.add_artifact(URI, *pair), uuid.uuid4()
    confirm(beta, row)
    assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    before = everything()
    beta.verified.clear()
    assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    assert everything() == before
    assert outcome(site_caller, pair[0], entry(row)) == "not_confirmed"
    assert everything() == before


def test_a_site_that_keeps_its_copy_counts_again(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, site_caller: Client, other_caller: Client
) -> None:
    row, release = federation.add_artifact(URI, *pair), uuid.uuid4()
    confirm(alpha, row)
    confirm(beta, row)
    assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    for expected in (1, 0):
        answer = ask(site_caller, pair[0], {"id": str(row.id), "release": str(release)}, path="/releases/returned")
        assert answer == {"site": str(pair[0].site_id), "returned": expected}
    assert outcome(other_caller, pair[1], entry(row)) == "granted"


def test_a_site_can_list_what_it_may_drop_by_page(
    federation: Federation,
    pair: Pair,
    beta: FakeSite,
    site_caller: Client,
    other_caller: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [federation.add_artifact(f"cadc:TEST/{number}", *pair) for number in range(3)]
    releases = {str(row.id): str(uuid.uuid4()) for row in rows}
    for row in rows:
        confirm(beta, row)
    ask(site_caller, pair[0], *(entry(row, uuid.UUID(releases[str(row.id)])) for row in rows))
    monkeypatch.setattr(views, "MAX_FILES", 2)
    listed: list[dict[str, str]] = []
    after: str | None = ""
    while after is not None:
        query = {"site": str(pair[0].site_id)} | ({"after": after} if after else {})
        page = site_caller.get("/releases", query).json()
        listed += page["files"]
        after = page["next"]
    assert listed == [{"id": key, "release": releases[key]} for key in sorted(releases)]
    assert other_caller.get("/releases", {"site": str(pair[1].site_id)}).json()["files"] == []
    for wrong in ({}, {"site": "x"}, {"site": str(pair[0].site_id), "after": "x"}):
        assert site_caller.get("/releases", wrong).status_code == 400
    assert site_caller.get("/releases", {"site": str(uuid.uuid4())}).status_code == 403
    assert Client().get("/releases", {"site": str(pair[0].site_id)}).status_code == 401


def test_a_late_return_does_not_undo_a_newer_grant(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, other_caller: Client
) -> None:
    row, old, new = federation.add_artifact(URI, *pair), uuid.uuid4(), uuid.uuid4()
    confirm(beta, row)
    for release in (old, new):
        assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    for caller, site, release in ((site_caller, pair[0], old), (other_caller, pair[1], new)):
        answer = ask(caller, site, {"id": str(row.id), "release": str(release)}, path="/releases/returned")
        assert answer["returned"] == 0
    assert marked(pair[0]) == {row.id}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"uri": "cadc:TEST/other.fits"}, "unknown"),
        ({"digest": "md5:" + "0" * 32}, "other_content"),
        ({"digest": "sha-1:" + "0" * 40}, "other_algorithm"),
        ({"id": str(uuid.uuid4())}, "other_content"),
    ],
)
def test_what_is_not_the_artifact_known_here_is_refused(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, changes: dict[str, Any], expected: str
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row)
    assert outcome(site_caller, pair[0], entry(row, **changes)) == expected
    assert marked(pair[0]) == set()


def test_a_copy_that_was_not_harvested_yet_is_refused(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client
) -> None:
    row = federation.add_artifact(URI, pair[1])
    confirm(beta, row)
    assert outcome(site_caller, pair[0], entry(row)) == "copy_unknown"


def test_old_verifications_count_not(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, settings: Settings
) -> None:
    settings.INVENTORY_RELEASE_VERIFIED_SECONDS = 3600
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row, verified_at=datetime.now(UTC) - timedelta(hours=2))
    assert outcome(site_caller, pair[0], entry(row)) == "not_confirmed"
    confirm(beta, row, verified_at=datetime.now(UTC) - timedelta(minutes=50))
    assert outcome(site_caller, pair[0], entry(row)) == "granted"


@pytest.mark.parametrize("how", ["disabled", "offline", "unreadable", "silent", "failing", "lying"])
def test_a_site_that_cannot_be_relied_on_counts_not(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, how: str
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row)
    match how:
        case "disabled":
            RemoteInventory.objects.filter(id=pair[1].id).update(enabled=False)
        case "offline":
            SiteSwitch.objects.create(remote=pair[1], offline=True)
        case "unreadable":
            StorageSite.objects.filter(id=_id(pair[1])).update(allow_read=False)
        case "silent":
            RemoteInventory.objects.filter(id=pair[1].id).update(url="http://127.0.0.1:1")
        case "failing":
            beta.verified_status = 503
        case "lying":
            confirm(beta, row, contentLength=row.content_length + 1)
    assert outcome(site_caller, pair[0], entry(row)) in {"too_few_copies", "not_confirmed"}
    assert marked(pair[0]) == set()


def test_a_rule_of_the_namespace_keeps_more_copies(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row)
    ReleaseRule.objects.create(namespace="cadc:TEST/", copies=2)
    (answer,) = ask(site_caller, pair[0], entry(row))["files"]
    assert (answer["reason"], answer["copies"], answer["demanded"]) == ("too_few_copies", 1, 2)


def test_an_artifact_deleted_while_the_sites_were_asked_is_unknown(federation: Federation, pair: Pair) -> None:
    row = federation.add_artifact(URI, *pair)
    delete_artifact(uri=ArtifactUri(row.uri))
    release = _release(row)
    # What was seen before the transaction.
    (verdict,) = operations._grant(_id(pair[0]), [release], {}, {row.id: frozenset({_id(pair[1])})})
    assert verdict.outcome is Outcome.UNKNOWN


def _id(remote: RemoteInventory) -> uuid.UUID:
    assert remote.site_id is not None
    return remote.site_id


def _release(row: ArtifactRow) -> Release:
    stored_at = datetime.fromisoformat(STORED_AT)
    return Release(uuid.uuid4(), row.id, row.uri, Checksum.parse(row.content_checksum), stored_at)


def test_only_a_known_site_may_ask_and_only_with_the_grant(
    federation: Federation, pair: Pair, operator: Client, reader: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    ask(reader, pair[0], entry(row), status=403)
    ask(Client(), pair[0], entry(row), status=401)
    RemoteInventory.objects.filter(id=pair[0].id).update(enabled=False)
    ask(operator, pair[0], entry(row), status=403)
    ask(operator, pair[0], {"id": str(row.id), "release": str(row.id)}, path="/releases/returned", status=403)


def test_nobody_but_the_site_itself_and_who_may_do_everything_speaks_for_it(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, other_caller: Client, operator: Client
) -> None:
    row, release = federation.add_artifact(URI, *pair), uuid.uuid4()
    confirm(beta, row)
    secret = auth.create_api_token(name="plain", grants=frozenset({Grant.HARVEST, Grant.READ}), now=datetime.now(UTC))
    plain = Client(headers={"authorization": f"Bearer {secret}"})
    kept: dict[str, object] = {"id": str(row.id), "release": str(release)}
    for caller in (plain, other_caller):
        ask(caller, pair[0], entry(row, release), status=403)
        ask(caller, pair[0], kept, path="/releases/returned", status=403)
        assert caller.get("/releases", {"site": str(pair[0].site_id)}).status_code == 403
    refused = plain.get("/releases", {"site": str(pair[0].site_id)}).json()["detail"]
    assert "plain does not speak for the inventory" in refused
    assert outcome(site_caller, pair[0], entry(row, release)) == "granted"
    assert ask(operator, pair[0], kept, path="/releases/returned")["returned"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{",
        '{"files": []}',
        '{"site": "x", "files": [{}]}',
        json.dumps({"site": str(ASKER), "files": [{}] * 1001}),
    ],
)
def test_a_malformed_question_is_refused_as_such(federation: Federation, site_caller: Client, body: str) -> None:
    answer = site_caller.post("/releases", body, content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("name", ["release", "id", "uri", "digest", "storedAt"])
def test_each_field_is_needed(federation: Federation, pair: Pair, site_caller: Client, name: str) -> None:
    row = federation.add_artifact(URI, *pair)
    whole = entry(row)
    for wrong in (
        {key: value for key, value in whole.items() if key != name},
        whole | {name: "x y"},
        whole | {name: 7},
    ):
        ask(site_caller, pair[0], wrong, status=400)
    ask(site_caller, pair[0], whole, whole, status=400)
    ask(site_caller, pair[0], entry(row, storedAt="2026-11-21T04:00:00"), status=400)


def test_outcomes_and_marked_copies_are_metrics(
    federation: Federation, pair: Pair, beta: FakeSite, site_caller: Client, other_caller: Client
) -> None:
    row = federation.add_artifact(URI, *pair)
    confirm(beta, row)
    first = entry(row)
    for caller, site, each in (
        (site_caller, pair[0], first),
        (site_caller, pair[0], first),
        (other_caller, pair[1], entry(row)),
    ):
        ask(caller, site, each)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }
    assert samples[("inventory_releases_total", "granted")] == 1
    assert samples[("inventory_releases_total", "repeated")] == 1
    assert samples[("inventory_releases_total", "too_few_copies")] == 1
    assert samples[("inventory_releasing_copies", "alpha")] == 1
    assert samples[("inventory_releasing_oldest_seconds", "alpha")] >= 0


def test_a_crash_anywhere_in_a_grant_or_a_return_leaves_all_or_nothing(
    federation: Federation, pair: Pair, beta: FakeSite
) -> None:
    rows = [federation.add_artifact(f"cadc:TEST/{number}", *pair) for number in range(3)]
    for row in rows:
        confirm(beta, row)
    asked = [_release(row) for row in rows]
    before = everything()

    def unchanged() -> None:
        assert everything() == before

    def grant() -> None:
        verdicts = operations.grant_releases(site_id=_id(pair[0]), asked=asked)
        assert all(verdict.is_granted for verdict in verdicts)

    assert crash_everywhere(grant, unchanged) >= 5
    assert marked(pair[0]) == {row.id for row in rows}
    before = everything()

    def give_back() -> None:
        returned = [(one.artifact_id, one.release_id) for one in asked]
        assert operations.return_releases(site_id=_id(pair[0]), returned=returned) == 3

    assert crash_everywhere(give_back, unchanged) >= 2
    assert marked(pair[0]) == set()


# --- two sites at once

FILES, AT_ONCE = 1000, 100


class Dropping:
    """A site that asks for everything it has, and drops what it may, as fast as it can."""

    def __init__(
        self, remote: RemoteInventory, fake: FakeSite, port: int, token: str, start: threading.Barrier
    ) -> None:
        self.remote, self.fake, self.granted, self.refused = remote, fake, set[str](), set[str]()
        self._url, self._token, self._start = f"http://127.0.0.1:{port}/releases", token, start

    def run(self, rows: Sequence[ArtifactRow], *, is_backwards: bool) -> None:
        http = urllib3.PoolManager(retries=False)
        by_id = {str(row.id): row for row in rows}
        for start in range(0, len(rows), AT_ONCE):
            chunk = sorted(rows[start : start + AT_ONCE], key=lambda row: row.id, reverse=is_backwards)
            body = {"site": str(self.remote.site_id), "files": [entry(row) for row in chunk]}
            self._start.wait(60)
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            answer = http.request("POST", self._url, body=json.dumps(body), headers=headers)
            assert answer.status == 200, answer.data
            for file in answer.json()["files"]:
                uri = by_id[file["id"]].uri
                if file["granted"]:
                    # From here on it does not confirm it any more: the bytes are gone.
                    del self.fake.verified[uri]
                    self.granted.add(uri)
                else:
                    self.refused.add(uri)


def test_two_sites_that_retire_the_same_thousand_files_at_once_leave_a_copy_of_each(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, port: int
) -> None:
    rows = [federation.add_artifact(f"cadc:TEST/{number:04}", *pair) for number in range(FILES)]
    for row in rows:
        confirm(alpha, row)
        confirm(beta, row)
    start = threading.Barrier(2)
    one = Dropping(pair[0], alpha, port, peers.pair(pair[0]).token(), start)
    two = Dropping(pair[1], beta, port, peers.pair(pair[1]).token(), start)
    # Both are at the same files all the time, named in opposite orders.
    threads = [
        threading.Thread(target=site.run, args=(rows,), kwargs={"is_backwards": site is two}) for site in (one, two)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(one.granted) + len(one.refused) == len(two.granted) + len(two.refused) == FILES
    assert not one.granted & two.granted
    assert all(row.uri in alpha.verified or row.uri in beta.verified for row in rows)
    assert len(one.granted | two.granted) == FILES, "each file was given up once"
    assert (len(marked(pair[0])), len(marked(pair[1]))) == (len(one.granted), len(two.granted))
