"""What every difference means, for both roles: the cases of reference 5.4 row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from datamodel.rules import ArtifactRow, meta_checksum_of
from harvest.reconcile.rules import (
    Action,
    Here,
    Label,
    Mode,
    There,
    Verdict,
    judge_at_global,
    judge_at_site,
    judge_excluded,
)
from tests.factories import artifact_row

ROW = artifact_row()


def updated(row: ArtifactRow, seconds: int) -> ArtifactRow:
    changed = replace(row, content_type="new", meta_modified_at=row.meta_modified_at + timedelta(seconds=seconds))
    return replace(changed, meta_checksum=meta_checksum_of(changed))


NEWER, OLDER = updated(ROW, 5), updated(ROW, -5)
RIVAL_LATER = artifact_row(content_last_modified=ROW.content_last_modified + timedelta(seconds=1))
RIVAL_EARLIER = artifact_row(content_last_modified=ROW.content_last_modified - timedelta(seconds=1))
OTHER_CONTENT = replace(artifact_row(data=b"other"), id=ROW.id)
ABSENT = There()
STORED = Here(artifact=ROW, is_member=True)
KNOWN = Here(artifact=ROW)
OLD = Here(may_be_forgotten=True)

BOTH = [
    (There(ROW), Here(is_deleted=True), Label.DELETED_HERE, Action.NONE),
    (There(ROW), Here(), Label.MISSING, Action.TAKE),
    (There(ROW, is_passed=False), Here(), Label.NOT_HARVESTED, Action.NONE),
    (There(ROW), Here(same_uri=RIVAL_EARLIER), Label.THEIRS_WINS, Action.TAKE),
    (There(ROW), Here(same_uri=RIVAL_LATER), Label.OURS_WINS, Action.TAKE),
    (There(ROW, is_passed=False), Here(same_uri=RIVAL_EARLIER), Label.NOT_HARVESTED, Action.NONE),
    (There(NEWER), STORED, Label.NEWER_THERE, Action.TAKE),
    (There(NEWER, is_passed=False), STORED, Label.NOT_HARVESTED, Action.NONE),
    (There(OLDER), STORED, Label.NEWER_HERE, Action.NONE),
    (There(OTHER_CONTENT), STORED, Label.CONTRADICTION, Action.NONE),
    (There(ROW), STORED, Label.SETTLED, Action.NONE),
    (There(is_deleted=True), STORED, Label.DELETED_THERE, Action.DELETE),
    (There(is_deleted=True, is_passed=False), STORED, Label.NOT_HARVESTED, Action.NONE),
    (ABSENT, Here(), Label.SETTLED, Action.NONE),
    (There(is_deleted=True), Here(), Label.SETTLED, Action.NONE),
]
AT_GLOBAL = [
    (There(is_copy_dropped=True), STORED, Label.COPY_DROPPED, Action.REMOVE_COPY),
    (There(is_copy_dropped=True, is_passed=False), STORED, Label.NOT_HARVESTED, Action.NONE),
    (ABSENT, STORED, Label.COPY_UNKNOWN, Action.REMOVE_COPY),
    (There(is_passed=False), STORED, Label.NOT_HARVESTED, Action.NONE),
    (ABSENT, KNOWN, Label.SETTLED, Action.NONE),
    (There(ROW), KNOWN, Label.COPY_MISSING, Action.TAKE),
    (There(OLDER), KNOWN, Label.COPY_MISSING, Action.TAKE),
    (There(NEWER), KNOWN, Label.NEWER_THERE, Action.TAKE),
    (There(ROW, is_passed=False), KNOWN, Label.NOT_HARVESTED, Action.NONE),
    (There(OTHER_CONTENT), KNOWN, Label.CONTRADICTION, Action.NONE),
    (There(ROW), OLD, Label.FORGOTTEN_HERE, Action.NONE),
    (There(ROW), replace(OLD, same_uri=RIVAL_EARLIER), Label.FORGOTTEN_HERE, Action.NONE),
    (There(ROW, is_passed=False), OLD, Label.NOT_HARVESTED, Action.NONE),
]
AT_SITE = [
    (ABSENT, STORED, Label.ONLY_HERE, Action.NONE),
    (There(is_passed=False), STORED, Label.ONLY_HERE, Action.NONE),
    (ABSENT, KNOWN, Label.ONLY_HERE, Action.NONE),
    (ABSENT, replace(STORED, may_be_forgotten=True), Label.FORGOTTEN_THERE, Action.QUARANTINE),
    (There(is_passed=False), replace(STORED, may_be_forgotten=True), Label.ONLY_HERE, Action.NONE),
    (There(ROW), replace(STORED, may_be_forgotten=True), Label.SETTLED, Action.NONE),
    (There(ROW), Here(is_selected=False), Label.UNWANTED, Action.TAKE),
    (There(ROW), replace(STORED, is_selected=False), Label.COPY_UNRECORDED, Action.NONE),
    (There(ROW), replace(KNOWN, is_selected=False), Label.UNWANTED, Action.NONE),
    (There(NEWER), replace(STORED, is_selected=False), Label.NEWER_THERE, Action.TAKE),
    (There(ROW), Here(is_selected=False, same_uri=RIVAL_EARLIER), Label.THEIRS_WINS, Action.TAKE),
    (There(is_deleted=True), replace(STORED, is_selected=False), Label.DELETED_THERE, Action.DELETE),
]


@pytest.mark.parametrize(("there", "here", "label", "action"), [*BOTH, *AT_GLOBAL])
def test_a_global_judges(there: There, here: Here, label: Label, action: Action) -> None:
    assert judge_at_global(there, here) == Verdict(label, action)


@pytest.mark.parametrize(("there", "here", "label", "action"), [*BOTH, *AT_SITE])
def test_a_site_judges(there: There, here: Here, label: Label, action: Action) -> None:
    assert judge_at_site(there, here) == Verdict(label, action)


def test_every_label_is_given_to_something() -> None:
    given = {label for _, _, label, _ in [*BOTH, *AT_GLOBAL, *AT_SITE]}
    given.add(judge_excluded(is_stored=False, is_repaired=False).label)
    assert given == set(Label)


@pytest.mark.parametrize(("is_stored", "is_repaired"), [(True, False), (False, True), (True, True)])
def test_no_row_of_something_stored_or_lost_is_dropped_by_policy(*, is_stored: bool, is_repaired: bool) -> None:
    assert judge_excluded(is_stored=is_stored, is_repaired=is_repaired).action is Action.NONE


def test_what_removes_is_not_done_by_adding() -> None:
    found = [Verdict(label, action) for _, _, label, action in [*BOTH, *AT_GLOBAL, *AT_SITE]]
    found.append(judge_excluded(is_stored=False, is_repaired=False))
    added = {verdict.label for verdict in found if verdict.is_applied(Mode.ADD)}
    applied = {verdict.label for verdict in found if verdict.is_applied(Mode.ALL)}
    assert added == {Label.MISSING, Label.COPY_MISSING, Label.NEWER_THERE, Label.FORGOTTEN_THERE}
    removing = {Label.DELETED_THERE, Label.COPY_DROPPED, Label.COPY_UNKNOWN, Label.EXCLUDED}
    assert applied == added | removing | {Label.THEIRS_WINS, Label.OURS_WINS}
    assert not any(verdict.is_applied(Mode.REPORT) for verdict in found)
