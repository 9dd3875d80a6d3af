"""By what every read of a file is judged, whether it is asked for alone (`views`) or with others (`batch`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import connection
from django.http import HttpRequest

from datamodel import auth, rates
from datamodel.errors import NotPermittedError, StoredObjectMissingError
from datamodel.permissions import Caller, missing
from datamodel.rules import ArtifactRow, Located
from datamodel.uris import ArtifactUri
from site_service.files.queries import FileState
from site_service.scrub import operations as scrub
from site_service.storage.contract import ArtifactStore

logger = logging.getLogger(__name__)


def caller_by_url(
    request: HttpRequest, token: str, uri: ArtifactUri, *, http_method: str, begun_at: datetime | None = None
) -> Caller:
    """Who calls by a signed URL, whose rights are those of this uri alone. Raises `NotPermittedError`, `TooManyRequestsError`."""
    try:
        return auth.authenticate_url(token, uri, http_method=http_method, begun_at=begun_at)
    except NotPermittedError:
        rates.charge_failure(request)
        raise


def readable(uri: ArtifactUri, state: FileState) -> tuple[ArtifactRow, Located]:
    """What is served under the uri. Raises `NotPermittedError` where the site's switch forbids it, `ArtifactNotFoundError`."""
    if not state.allow_read:
        raise NotPermittedError("this site serves no reads now; try another one")
    if state.stored is None:
        raise missing(uri)
    return state.stored


@contextmanager
def reporting_missing(store: ArtifactStore, artifact: ArtifactRow, located: Located) -> Iterator[None]:
    """Around what opens the bytes: if they are not there, the copy leaves service before the reader is told."""
    try:
        yield
    except StoredObjectMissingError as error:
        facts = {"uri": artifact.uri, "id": artifact.id, "storage_id": located.storage_id, "reason": error.detail}
        logger.warning("END event=open_artifact", extra={"facts": facts | {"result": "failed"}})
        scrub.report_missing(artifact=artifact, located=located, store=store)
        connection.close()
        raise
