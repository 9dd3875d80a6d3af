"""Moments that tests can tell from each other."""

from __future__ import annotations

from datetime import datetime, timedelta

from datamodel.models import Artifact, RetiredArtifact
from datamodel.rows import database_now


def tick() -> datetime:
    """A moment after everything that has happened, and before everything that will."""
    ends = RetiredArtifact.objects.values_list("ended_at", flat=True)
    latest = max(
        [database_now(), *Artifact.objects.values_list("content_last_modified", flat=True), *filter(None, ends)]
    )
    while (now := database_now()) <= latest + timedelta(milliseconds=1):
        pass
    while database_now() <= now:
        pass
    return now
