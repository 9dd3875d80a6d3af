"""A bucket in memory; it can die before a chosen step, lose an answer, or cut a listing."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from datamodel.errors import StateConflictError, StorageUnavailableError
from site_service.storage.bucket import ListedKey, OpenedKey, PendingUpload
from site_service.storage.contract import ByteRange
from tests.faults import Crash


@dataclass
class BucketContent:
    """What survives the process that wrote it."""

    keys: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, tuple[str, dict[int, bytes]]] = field(default_factory=dict)


class MemoryBucket:
    """`crash_at` counts changes from 0; `lose_answers_of` names the method that does its work and then seems to fail."""

    def __init__(
        self, held: BucketContent, *, crash_at: int | None = None, lose_answers_of: str = "", listed: int | None = None
    ) -> None:
        self.held = held
        self._left = crash_at
        self._lose = lose_answers_of
        self._listed = listed
        self.has_crashed = False
        self.calls: list[str] = []

    def put(self, key: str, content: bytes, *, replacing: str | None = None) -> str:
        self._change("put")
        if replacing and (key not in self.held.keys or _tag(self.held.keys[key]) != replacing):
            raise StateConflictError("not the version that was read")
        self.held.keys[key] = content
        self._answer("put")
        return _tag(content)

    def get(self, key: str) -> tuple[bytes, str] | None:
        content = self.held.keys.get(key)
        return None if content is None else (content, _tag(content))

    def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedKey | None:
        content = self.held.keys.get(key)
        if content is None:
            return None
        asked = byte_range or ByteRange(0, len(content))
        return OpenedKey(io.BytesIO(content[asked.start : asked.start + asked.length]), len(content))

    def length(self, key: str) -> int | None:
        content = self.held.keys.get(key)
        return None if content is None else len(content)

    def delete(self, key: str) -> None:
        self._change("delete")
        self.held.keys.pop(key, None)

    def list(self, prefix: str) -> Iterator[ListedKey]:
        for number, key in enumerate(sorted(key for key in self.held.keys if key.startswith(prefix))):
            if number == self._listed:
                raise StorageUnavailableError("the listing was cut")
            yield ListedKey(key, len(self.held.keys[key]), datetime.now(UTC))

    def begin_upload(self, key: str) -> str:
        self._change("begin_upload")
        upload_id = f"upload-{len(self.held.uploads)}"
        self.held.uploads[upload_id] = (key, {})
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, content: bytes) -> str:
        self._change("upload_part")
        self.held.uploads[upload_id][1][number] = content
        return _tag(content)

    def copy_part(self, key: str, upload_id: str, number: int, source: str, byte_range: ByteRange) -> str:
        self._change("copy_part")
        if source not in self.held.keys:
            raise StorageUnavailableError("there is nothing to copy")
        content = self.held.keys[source][byte_range.start : byte_range.start + byte_range.length]
        self.held.uploads[upload_id][1][number] = content
        return _tag(content)

    def complete_upload(self, key: str, upload_id: str, tags: Sequence[str]) -> None:
        self._change("complete_upload")
        _, parts = self.held.uploads.pop(upload_id)
        assert [_tag(parts[number]) for number in range(1, len(tags) + 1)] == list(tags)
        self.held.keys[key] = b"".join(parts[number] for number in range(1, len(tags) + 1))
        self._answer("complete_upload")

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._change("abort_upload")
        self.held.uploads.pop(upload_id, None)

    def pending_uploads(self) -> Iterator[PendingUpload]:
        for upload_id, (key, _) in list(self.held.uploads.items()):
            yield PendingUpload(key, upload_id, datetime.now(UTC))

    def _change(self, name: str) -> None:
        self.calls.append(name)
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self.has_crashed = True
            raise Crash

    def _answer(self, name: str) -> None:
        if name == self._lose:
            raise StorageUnavailableError("the answer was lost")


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
