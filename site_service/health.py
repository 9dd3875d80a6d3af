"""Whether this site can serve, and what it takes now: the answers behind /readyz and /availability."""

from __future__ import annotations

from django.conf import settings

from datamodel.health import ServiceState, StateReport
from datamodel.models import StorageLocation, StorageSite
from site_service.storage.registry import create_store, get_store


def check_store() -> None:
    """Ready only with a store that answers. Raises `NotConfiguredError` or `StorageError`."""
    get_store().free_space()


def ensure_store() -> None:
    """A step of `manage.py provision`: make the store on first use. A repeat changes nothing.

    Once anything is stored here a missing store is a missing disk: then it is only opened. Raises `NotConfiguredError`.
    """
    if StorageLocation.objects.exists():
        check_store()
    else:
        create_store()


def state() -> StateReport:
    """ReadOnly when the operator says so or space runs out; Offline when nothing may be read."""
    site = StorageSite.objects.first()
    if site is not None and not site.allow_read:
        return StateReport(ServiceState.OFFLINE, "the operator has switched off reading")
    if site is not None and not site.allow_write:
        return StateReport(ServiceState.READ_ONLY, "the operator has switched off writing")
    free = get_store().free_space().free
    if free is not None and free < settings.INVENTORY_PUT_FREE_BYTES:
        return StateReport(ServiceState.READ_ONLY, "too little free space for new content")
    return StateReport(ServiceState.READ_WRITE, "service is accepting requests")
