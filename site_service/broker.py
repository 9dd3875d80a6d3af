"""The Dramatiq broker of a site: `dramatiq site_service.broker`. Actors declared after its import belong to it.

Django imports it when the site starts (`apps.py`), so that whoever sends has a broker; a worker imports it first, and it starts Django.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_service.settings")

import django
import dramatiq
from django.apps import apps
from django.conf import settings
from django.db import close_old_connections, connections
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    CurrentMessage,
    Middleware,
    Retries,
    ShutdownNotifications,
    TimeLimit,
)

from datamodel import memory
from datamodel.audit import acting


class Memory(Middleware):
    """What one large file took is there for the next, whichever thread carries it."""

    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        del broker
        memory.share_arenas()
        memory.reuse_blocks()


class DatabaseConnections(Middleware):
    """Connection hygiene: no message inherits a broken connection, no idle worker holds one."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        del broker, message
        close_old_connections()

    def after_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, **outcome: Any) -> None:
        del broker, message, outcome
        connections.close_all()

    after_skip_message = before_process_message


class Acting(Middleware):
    """What an actor does is its doing (`datamodel.audit`)."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        del broker
        acting.begin_work(message.actor_name)


def make_broker() -> RedisBroker:
    """Nothing is reached yet. The list is explicit: the default one serves metrics on a port of its own.

    The default time limit is ten minutes, which a transfer may exceed: each actor sets its own.
    """
    middleware = [
        AgeLimit(),
        TimeLimit(),
        ShutdownNotifications(),
        Callbacks(),
        Retries(min_backoff=1000, max_backoff=300_000, max_retries=10),
        CurrentMessage(),
        DatabaseConnections(),
        Acting(),
        Memory(),
    ]
    return RedisBroker(
        url=settings.INVENTORY_DRAMATIQ_URL, namespace=f"{settings.INVENTORY_NAME}:dramatiq", middleware=middleware
    )


broker = make_broker()
dramatiq.set_broker(broker)

if not apps.models_ready:
    django.setup()

for name in settings.DRAMATIQ_ACTORS:
    if find_spec(name) is not None:
        import_module(name)
