"""Alarms: raised with what they are about, told once to each channel until that works, listed until somebody clears them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from pytest_django import Settings

from datamodel import auth, brake
from datamodel.alarms import channels, delivery, operations, rules
from datamodel.alarms.models import Alarm, AlarmDelivery
from datamodel.alarms.operations import claim_deliveries, raise_alarm
from datamodel.alarms.rules import AlarmKind, family_of
from datamodel.checks import check_settings
from datamodel.env import mail_server
from datamodel.errors import DeletionBrakeError, NotConfiguredError
from datamodel.models import DeletionBrake
from datamodel.permissions import Grant
from datamodel.rows import database_now
from tests.fakes.mail import MailSink, serve_mail
from tests.fakes.webhook import SECRET, WebhookReceiver, serve_webhook

pytestmark = pytest.mark.usefixtures("inventory")


@pytest.fixture
def sink(settings: Settings) -> Iterator[MailSink]:
    with serve_mail() as sink:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
        settings.INVENTORY_ALARM_EMAIL_TO = ["ops@example.org", "night@example.org"]
        yield sink


@pytest.fixture
def receiver(settings: Settings) -> Iterator[WebhookReceiver]:
    with serve_webhook() as receiver:
        settings.INVENTORY_ALARM_WEBHOOKS = receiver.setting
        settings.INVENTORY_ALARM_PRIVATE = True
        yield receiver


def happen(subject: str = "cadc:TEST/", kind: AlarmKind = AlarmKind.DAMAGED_COPY, text: str = "it is bad") -> None:
    with transaction.atomic():
        raise_alarm(kind=kind, subject=subject, text=text)


def a_while_passes(seconds: float) -> None:
    AlarmDelivery.objects.update(next_try_at=F("next_try_at") - timedelta(seconds=seconds))
    Alarm.objects.update(told_at=F("told_at") - timedelta(seconds=seconds))


def test_an_alarm_is_told_once_by_mail_and_by_a_webhook_whose_signature_holds(
    sink: MailSink, receiver: WebhookReceiver
) -> None:
    happen(text="the copy of cadc:TEST/1 is bad")
    assert delivery.deliver_due() == 2
    assert delivery.deliver_due() == 0
    (mail,) = sink.messages
    assert mail["Subject"] == "[site] damaged_copy: cadc:TEST/"
    assert sink.recipients == [["ops@example.org", "night@example.org"]]
    text = mail.get_content()
    assert "the copy of cadc:TEST/1 is bad" in text
    assert "RUNBOOK.md#damaged_copy" in text
    (event,) = receiver.events
    assert receiver.forged == 0
    assert event["type"] == "alarm.raised"
    assert event["data"]["alarm"]["text"] == "the copy of cadc:TEST/1 is bad"
    assert event["data"]["alarm"]["kind"] == "damaged_copy"


def test_what_the_undone_transaction_raised_is_undone_with_it(sink: MailSink) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raise_alarm(kind=AlarmKind.DAMAGED_COPY, subject="x", text="y")
        raise ZeroDivisionError
    assert delivery.deliver_due() == 0
    assert sink.messages == []


def test_the_same_thing_while_it_is_open_counts_and_is_told_again_only_after_a_time(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    settings.INVENTORY_ALARM_REPEAT_SECONDS = 3600
    for _ in range(3):
        happen()
        delivery.deliver_due()
    assert len(receiver.events) == 1
    assert Alarm.objects.get().count == 3
    a_while_passes(3601)
    happen(text="still bad")
    for _ in range(2):
        delivery.deliver_due()
    assert [event["data"]["alarm"]["count"] for event in receiver.events] == [1, 4]
    assert receiver.ids[0] != receiver.ids[1]


def test_an_acknowledged_alarm_is_not_told_again_and_a_cleared_one_begins_anew(receiver: WebhookReceiver) -> None:
    happen()
    delivery.deliver_due()
    assert operations.acknowledge_alarms(alarms=Alarm.objects.all(), by="me") == 1
    a_while_passes(10**6)
    happen()
    assert delivery.deliver_due() == 0
    assert operations.clear_alarms(alarms=Alarm.objects.all(), by="me") == 1
    happen()
    assert delivery.deliver_due() == 1
    assert Alarm.objects.count() == 2
    assert len(receiver.events) == 2


def test_many_at_once_are_one_mail(sink: MailSink) -> None:
    for number in range(7):
        happen(f"cadc:T{number}/")
    assert delivery.deliver_due() == 7
    (mail,) = sink.messages
    assert mail["Subject"] == "[site] damaged_copy: cadc:T0/ and 6 more"
    assert all(f"cadc:T{number}/" in mail.get_content() for number in range(7))


def test_a_channel_that_fails_keeps_no_other_waiting_and_is_tried_again_under_the_same_id(
    sink: MailSink, receiver: WebhookReceiver
) -> None:
    receiver.status = 503
    happen()
    assert delivery.deliver_due() == 1
    assert len(sink.messages) == 1
    failed = AlarmDelivery.objects.get(channel="pager")
    assert (failed.attempts, failed.last_error, failed.delivered_at) == (1, "it answered 503", None)
    assert delivery.deliver_due() == 0
    receiver.status = 200
    a_while_passes(16)
    assert delivery.deliver_due() == 1
    assert len(set(receiver.ids)) == 1
    assert len(receiver.ids) == 2
    assert len(sink.messages) == 1


def test_a_mail_server_that_refuses_or_is_gone_is_tried_again(sink: MailSink, settings: Settings) -> None:
    sink.refuses = True
    happen()
    assert delivery.deliver_due() == 0
    assert "451" in AlarmDelivery.objects.get().last_error
    sink.refuses, settings.EMAIL_PORT = False, 1
    a_while_passes(16)
    assert delivery.deliver_due() == 0
    assert "refused" in AlarmDelivery.objects.get().last_error
    settings.EMAIL_PORT = sink.port
    a_while_passes(31)
    assert delivery.deliver_due() == 1
    assert AlarmDelivery.objects.get().last_error == ""


def test_a_redirect_is_not_followed(receiver: WebhookReceiver) -> None:
    with serve_webhook() as elsewhere:
        receiver.status, receiver.location = 307, elsewhere.url
        happen()
        assert delivery.deliver_due() == 0
        assert elsewhere.events == []
    assert AlarmDelivery.objects.get().last_error == "it answered 307"


def test_what_a_process_claimed_and_died_with_is_told_by_the_next_after_a_minute(receiver: WebhookReceiver) -> None:
    happen()
    operations.plan_deliveries(channels.names())
    (claimed,) = claim_deliveries(channel="pager", limit=10)
    assert delivery.deliver_due() == 0
    a_while_passes(operations.CLAIM_SECONDS + 1)
    assert delivery.deliver_due() == 1
    assert receiver.ids[0].endswith(claimed.message)


def test_two_workers_at_once_tell_each_alarm_once(receiver: WebhookReceiver) -> None:
    for number in range(20):
        happen(f"cadc:T{number}/")

    def work() -> int:
        try:
            return delivery.deliver_due()
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=3) as pool:
        counts = [future.result() for future in [pool.submit(work) for _ in range(3)]]
    assert sum(counts) == 20
    assert len(set(receiver.ids)) == len(receiver.ids) == 20


def test_raised_at_once_by_many_it_is_one_alarm_that_counted_all() -> None:
    def work() -> None:
        try:
            happen()
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=4) as pool:
        for future in [pool.submit(work) for _ in range(24)]:
            future.result()
    assert Alarm.objects.get().count == 24


def test_a_channel_that_is_configured_later_hears_what_is_open_and_one_that_was_dropped_is_forgotten(
    receiver: WebhookReceiver, settings: Settings
) -> None:
    setting, settings.INVENTORY_ALARM_WEBHOOKS = settings.INVENTORY_ALARM_WEBHOOKS, "[]"
    happen("old")
    operations.clear_alarms(alarms=Alarm.objects.all(), by="me")
    Alarm.objects.update(cleared_at=database_now() - timedelta(days=2))
    happen("new")
    assert delivery.deliver_due() == 0
    settings.INVENTORY_ALARM_WEBHOOKS = setting
    assert delivery.deliver_due() == 1
    assert [event["data"]["alarm"]["subject"] for event in receiver.events] == ["new"]
    settings.INVENTORY_ALARM_WEBHOOKS = "[]"
    delivery.deliver_due()
    assert not AlarmDelivery.objects.exists()


def test_names_from_anywhere_cannot_break_a_mail(sink: MailSink) -> None:
    happen("cadc:x\r\nBcc: all@example.org", text="line\r\n.\r\nRCPT TO:<all@example.org>")
    assert delivery.deliver_due() == 1
    assert sink.messages[0]["Bcc"] is None
    assert sink.recipients == [["ops@example.org", "night@example.org"]]


def test_an_engaged_brake_is_an_alarm_and_its_release_clears_it() -> None:
    for _ in range(2):
        brake.engage(DeletionBrakeError("harvest:peer would remove 4 artifacts", source="harvest:peer", namespace=""))
    alarm = Alarm.objects.get()
    assert (alarm.kind, alarm.subject, alarm.count) == ("deletion_brake", "harvest:peer", 2)
    brake.release(brakes=DeletionBrake.objects.all())
    alarm.refresh_from_db()
    assert alarm.cleared_at is not None


def test_operators_list_alarms_page_by_page_and_others_do_not() -> None:
    for number in range(3):
        happen(f"cadc:T{number}/")
    happen("gone", AlarmKind.TEST)
    operations.clear_alarms(alarms=Alarm.objects.filter(subject="gone"), by="me")
    token = auth.create_api_token(name="op", grants=frozenset({Grant.OPERATE}), now=database_now())
    client = Client(headers={"Authorization": f"Bearer {token}"})
    seen, query = [], "?limit=2"
    while query:
        answer = client.get(f"/alarms{query}").json()
        seen += [item["subject"] for item in answer["items"]]
        query = answer["next"]
    assert seen == ["cadc:T0/", "cadc:T1/", "cadc:T2/"]
    assert [item["subject"] for item in client.get("/alarms?state=cleared").json()["items"]] == ["gone"]
    assert len(client.get("/alarms?state=all&kind=test").json()["items"]) == 1
    assert client.get("/alarms?kind=nonsense").status_code == 400
    reader = auth.create_api_token(name="reader", grants=frozenset({Grant.READ}), now=database_now())
    assert Client(headers={"Authorization": f"Bearer {reader}"}).get("/alarms").status_code == 403
    assert Client().get("/alarms").status_code == 401


def test_the_admin_lists_acknowledges_and_clears() -> None:
    happen("<script>")
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    url = "/admin/alarms/alarm/"
    page = operator.get(url).content.decode()
    assert "&lt;script&gt;" in page
    assert "<script>it" not in page
    chosen = {"_selected_action": [str(Alarm.objects.get().pk)]}
    assert "1 acknowledged" in operator.post(url, {"action": "acknowledge"} | chosen, follow=True).content.decode()
    assert "1 cleared" in operator.post(url, {"action": "clear"} | chosen, follow=True).content.decode()
    assert Alarm.objects.get().cleared_by == "operator"
    assert operator.get(f"{url}{Alarm.objects.get().pk}/change/").status_code == 200
    assert operator.get(f"{url}?q=%3Cscr").status_code == 200


def test_the_command_lists_decides_and_tests_the_channels(receiver: WebhookReceiver, settings: Settings) -> None:
    happen()
    number, out = Alarm.objects.get().pk, StringIO()
    call_command("alarms", "--test", "--acknowledge", str(number), "--by", "eve", stdout=out)
    assert "a worker tells pager" in out.getvalue()
    assert f"{number} damaged_copy: cadc:TEST/ (1, since" in out.getvalue()
    assert "acknowledged by eve" in out.getvalue()
    delivery.deliver_due()
    assert sorted(event["data"]["alarm"]["kind"] for event in receiver.events) == ["damaged_copy", "test"]
    call_command("alarms", "--clear", str(number), stdout=out)
    with pytest.raises(CommandError, match=f"no open alarm has the number {number}"):
        call_command("alarms", "--clear", str(number), stdout=out)
    settings.INVENTORY_ALARM_WEBHOOKS = "[]"
    with pytest.raises(CommandError, match="there is no channel"):
        call_command("alarms", "--test", stdout=out)


def test_metrics_tell_what_is_open_and_what_could_not_be_told(receiver: WebhookReceiver, settings: Settings) -> None:
    settings.INVENTORY_METRICS_PUBLIC = True
    receiver.status = 500
    happen()
    delivery.deliver_due()
    text = Client().get("/metrics").content.decode()
    assert 'inventory_alarms_open{kind="damaged_copy"} 1.0' in text
    assert 'inventory_alarms_open{kind="no_good_copy"} 0.0' in text
    assert 'inventory_alarms_undelivered{channel="pager"} 1.0' in text
    assert 'inventory_alarm_deliveries_failing{channel="pager"} 1.0' in text


def test_alarms_that_were_cleared_long_ago_are_forgotten() -> None:
    happen("old")
    operations.clear_alarms(alarms=Alarm.objects.all(), by="me")
    happen("new")
    assert operations.forget_cleared() == 0
    Alarm.objects.filter(subject="old").update(cleared_at=database_now() - timedelta(days=91))
    assert operations.forget_cleared() == 1
    assert Alarm.objects.get().subject == "new"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("{", "is not JSON"),
        ("{}", "must be a list"),
        ('[{"name": "a"}]', "each entry is like"),
        (f'[{{"name": "email", "url": "http://a/", "secret": "{SECRET}"}}]', "is no name of a webhook"),
        (f'[{{"name": "a", "url": "ftp://a/", "secret": "{SECRET}"}}]', "must be an http or https URL"),
        ('[{"name": "a", "url": "http://a/", "secret": "plain"}]', "a secret is whsec_ and base64"),
        ('[{"name": "a", "url": "http://a/", "secret": "whsec_c2hvcnQ="}]', "has at least 24 bytes"),
    ],
)
def test_a_wrong_setting_is_named_by_the_check_and_by_whoever_reads_it(
    setting: str, complaint: str, settings: Settings
) -> None:
    settings.INVENTORY_ALARM_WEBHOOKS = setting
    with pytest.raises(NotConfiguredError, match=complaint):
        channels.names()
    assert "inventory.E020" in [message.id for message in check_settings(app_configs=None)]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification."""
    secret = rules.parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = rules.signature(
        secret, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}'
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert len(base64.b64decode(made.removeprefix("v1,"))) == 32


def test_pauses_grow_up_to_an_hour() -> None:
    assert [rules.retry_seconds(number) for number in (1, 2, 3, 8, 9, 10**6)] == [15, 30, 60, 1920, 3600, 3600]


@pytest.mark.parametrize(
    ("uri", "family"), [("cadc:CFHT/raw/1.fits", "cadc:CFHT/"), ("cadc:x.fits", "cadc:"), ("a:b:c/d", "a:b:c/")]
)
def test_alarms_about_files_are_gathered_by_the_first_part_of_their_names(uri: str, family: str) -> None:
    assert family_of(uri) == family


def test_mail_servers_are_named_by_urls() -> None:
    assert mail_server("smtp://localhost").port == 25
    found = mail_server("smtps://me%40x:p%3Aw@mail.example.org")
    assert (found.user, found.password, found.port, found.is_ssl) == ("me@x", "p:w", 465, True)
    assert mail_server("smtp+starttls://mail.example.org:2525").is_starttls
    with pytest.raises(NotConfiguredError, match="looks like smtp://"):
        mail_server("mail.example.org")
