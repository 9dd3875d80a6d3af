"""Who looks at the buckets: this process, one after the other, or several processes, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta

from datamodel.process_pool import process_pool
from site_service.file_validate.ahead import fetched_ahead
from site_service.file_validate.queries import placed_artifacts
from site_service.file_validate.rules import Policy
from site_service.file_validate.survey import Rows, Survey, survey_bucket
from site_service.storage.contract import ArtifactStore
from site_service.storage.registry import get_store

Surveyor = Callable[[Policy, Sequence[str], timedelta], Generator[tuple[str, Survey], None, None]]
"""Looks at buckets with a grace time: each bucket's survey in their order, as far as it is asked for.

It raises what `survey_bucket` raises where the survey of that bucket would have come.
"""


def surveyor_of(store: ArtifactStore, rows: Rows = placed_artifacts) -> Surveyor:
    """This process."""

    def surveys(policy: Policy, buckets: Sequence[str], grace: timedelta) -> Generator[tuple[str, Survey], None, None]:
        with fetched_ahead(rows, buckets) as coming:
            for bucket in buckets:
                yield bucket, survey_bucket(store=store, policy=policy, bucket=bucket, grace=grace, rows=coming)

    return surveys


@contextmanager
def surveyor_processes(number: int) -> Iterator[Surveyor]:
    """So many processes of this site's configuration, for as long as the block lasts.

    They look at buckets ahead of those that were asked for. A process that is killed raises `BrokenExecutor`.
    """
    pool = process_pool(number)
    coming: dict[tuple[Policy, str, timedelta], Future[Survey]] = {}

    def surveys(policy: Policy, buckets: Sequence[str], grace: timedelta) -> Generator[tuple[str, Survey], None, None]:
        asked = [(policy, bucket, grace) for bucket in buckets]
        for place in coming.keys() - asked:
            coming.pop(place).cancel()
        for index, place in enumerate(asked):
            for later in asked[index : index + 2 * number]:
                if later not in coming:
                    coming[later] = pool.submit(_survey, *later)
            yield place[1], coming.pop(place).result()

    try:
        yield surveys
    finally:
        pool.shutdown(cancel_futures=True)


def _survey(policy: Policy, bucket: str, grace: timedelta) -> Survey:
    return survey_bucket(store=get_store(), policy=policy, bucket=bucket, grace=grace)
