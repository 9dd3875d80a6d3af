"""How long content is kept: the longest namespace decides, in Python as in SQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from datamodel.models import InventoryIdentity, RetiredArtifact
from datamodel.uris import Namespace
from site_service.retention import operations, queries
from site_service.retention.models import RetentionRule
from site_service.retention.rules import Retention
from site_service.storage.contract import ArtifactStore
from tests.site_service.files.requests import put

_NAMES = ["a:", "a:b/", "a:b/c/", "a:bb/", "b:", "b:x/y/"]
_URIS = ["a:x", "a:b/x", "a:b/c/x", "a:b/cc", "a:bb/x", "b:x", "b:x/y/z", "c:x"]
_TIMES = st.integers(0, 10_000).map(lambda seconds: timedelta(seconds=seconds))


@given(rules=st.dictionaries(st.sampled_from(_NAMES), _TIMES), default=_TIMES, least=_TIMES, uri=st.sampled_from(_URIS))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.django_db
def test_sql_says_what_python_says(rules: dict[str, timedelta], default: timedelta, least: timedelta, uri: str) -> None:
    retention = Retention({Namespace.parse(name): kept for name, kept in rules.items()}, default, least)
    expression, parameters = retention.sql("%(uri)s")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {expression.replace('%(uri)s', '%(uri)s::text COLLATE ' + chr(34) + 'C' + chr(34))}",
            parameters | {"uri": uri},
        )
        (seconds,) = cursor.fetchone()
    assert timedelta(seconds=seconds) == retention.of(uri)
    assert retention.shortest <= retention.of(uri)


@pytest.mark.parametrize(("uri", "seconds"), [("a:x", 5), ("a:b/x", 9), ("a:b/c/x", 9), ("c:x", 7)])
def test_the_longest_namespace_decides(uri: str, seconds: int) -> None:
    rules = {Namespace.parse("a:"): timedelta(seconds=5), Namespace.parse("a:b/"): timedelta(seconds=9)}
    assert Retention(rules, timedelta(seconds=7), timedelta(0)).of(uri) == timedelta(seconds=seconds)


def test_content_goes_when_the_rule_of_its_namespace_says_so(client: Client, store: ArtifactStore) -> None:
    RetentionRule.objects.create(namespace="cadc:TEST/long/", seconds=400 * 86400)
    RetentionRule.objects.create(namespace="cadc:TEST/short/", seconds=86400)
    for name in ("long/a", "short/b", "c"):
        put(client, b"x", path=f"/files/cadc:TEST/{name}")
        client.delete(f"/files/cadc:TEST/{name}")
    ids = dict(RetiredArtifact.objects.values_list("uri", "id"))
    for days, due in ((0.5, []), (2, ["short/b"]), (20, ["short/b", "c"]), (500, ["short/b", "c", "long/a"])):
        RetiredArtifact.objects.update(died_at=timezone.now() - timedelta(days=days))
        assert set(queries.due_retired()) == {ids[f"cadc:TEST/{name}"] for name in due}
    RetiredArtifact.objects.update(died_at=timezone.now() - timedelta(days=20))
    assert not operations.purge_retired(store=store, artifact_id=ids["cadc:TEST/long/a"])
    assert operations.purge_retired(store=store, artifact_id=ids["cadc:TEST/c"])


@pytest.mark.usefixtures("inventory")
def test_a_rule_is_made_in_the_admin_and_a_false_namespace_is_refused() -> None:
    assert InventoryIdentity.objects.exists()
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    url = "/admin/retention/retentionrule/add/"
    page = operator.post(url, {"namespace": "cadc:TEST", "seconds": 60, "note": ""})
    assert "must end with" in page.content.decode()
    assert operator.post(url, {"namespace": "cadc:TEST/", "seconds": 60, "note": ""}).status_code == 302
    assert queries.retention().of("cadc:TEST/x") >= timedelta(seconds=60)
