"""Which store this site uses: the only reader of Django settings in this package.

    STORAGES = {"artifacts": {"BACKEND": ..., "OPTIONS": {...}}}

BACKEND is a store class of this package, or the django-storages backend whose bucket the object store shall use. OPTIONS are
those of the class; for the object store all but its own are handed to django-storages. `read_only` wraps either.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from datamodel.errors import NotConfiguredError
from site_service.storage.contract import ArtifactStore
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.wrappers import ReadOnlyStore

ALIAS = "artifacts"
_FILESYSTEM = "site_service.storage.filesystem.FilesystemStore"
# By name: whoever stores on disks must not pay for loading the libraries of S3.
_DJANGO_STORAGES = {"storages.backends.s3.S3Storage": "site_service.storage.objectstore.ObjectStore"}
_OBJECT_STORE_OPTIONS = frozenset({"content_algorithm", "sha256", "part_size"})


@functools.cache
def get_store() -> ArtifactStore:
    """The configured store, one per process. Raises `NotConfiguredError`."""
    return build_store(_configuration())


# A forked worker must not share sockets or running digests with its parent.
os.register_at_fork(after_in_child=get_store.cache_clear)


def create_store() -> None:
    """Make the configured store if it is of the kind that must be made before first use, and is not there yet.

    Run by an operator or at installation, never by a request: an unmounted disk would be taken for a new one. Raises
    `NotConfiguredError`.
    """
    configuration = _configuration()
    if configuration["BACKEND"] == _FILESYSTEM:
        FilesystemStore.create(configuration["OPTIONS"]["root"])
    get_store.cache_clear()


def build_store(configuration: Mapping[str, Any]) -> ArtifactStore:
    """The store that one entry of STORAGES describes. Raises `NotConfiguredError`."""
    backend, options = configuration["BACKEND"], dict(configuration.get("OPTIONS", {}))
    is_read_only = options.pop("read_only", False)
    try:
        if backend in _DJANGO_STORAGES:
            own = {name: options.pop(name) for name in _OBJECT_STORE_OPTIONS & options.keys()}
            store = import_string(_DJANGO_STORAGES[backend])(options, **own)
        else:
            store = import_string(_own(backend))(**options)
    except (ImportError, TypeError, ImproperlyConfigured) as error:
        raise NotConfiguredError(f"STORAGES[{ALIAS!r}] does not describe a store: {error}") from error
    return ReadOnlyStore(store) if is_read_only else cast("ArtifactStore", store)


def _own(backend: str) -> str:
    if not backend.startswith("site_service.storage."):
        raise NotConfiguredError(f"STORAGES[{ALIAS!r}]: {backend} keeps none of the promises of an artifact store")
    return backend


def _configuration() -> Mapping[str, Any]:
    configuration: Mapping[str, Any] | None = settings.STORAGES.get(ALIAS)
    if configuration is None:
        raise NotConfiguredError(f"STORAGES has no entry {ALIAS!r}")
    return configuration
