"""The POSIX store: one file of bytes and one small file of facts per object, in a tree sharded by storage id.

    store.json                 the mark: says that this directory is a store, and which one
    objects/abc/<id>           the bytes; its first three hex digits are the storage bucket
    objects/abc/<id>.json      the facts (`records`), written and synced before the bytes get their name
    temporary/<id>             bytes being written, or being removed
    transactions/<id>/         put transactions (`filetransactions`)

The name of the bytes is the only truth: facts without bytes are nothing, bytes without facts are reported as invalid.
"""

from __future__ import annotations

import json
import uuid
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from datamodel.errors import (
    CallerError,
    NotConfiguredError,
    RangeNotSatisfiableError,
    StorageError,
    StorageUnavailableError,
    StoredObjectMissingError,
)
from site_service.storage.contract import (
    ByteRange,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    FreeSpace,
    InvalidObject,
    ListedObject,
    ListingEnd,
    PutTransactionStatus,
    StoreCapabilities,
    StoredObject,
    Write,
)
from site_service.storage.digests import DigestPlan, MeasuredContent
from site_service.storage.disk import Disk, StoredFile
from site_service.storage.filetransactions import FileTransactions, OpenTransaction
from site_service.storage.listings import with_end
from site_service.storage.records import encode_object, is_storage_id, judged, new_storage_id, now

BUCKET_DIGITS = 3
_MARK = "store.json"
_FACTS_SUFFIX = ".json"
# So many names of a listing the disk is told at once.
_AHEAD = 128
_SWEPT_SUFFIX = ".swept"


class FilesystemStore:
    """An `ArtifactStore` on one file system (local disk, or a network file system whose flock and rename are sound).

    Raises `NotConfiguredError` when `root` carries no mark: an unmounted disk must not look like an empty store.
    `create` makes the mark, in a new or empty directory only.
    """

    def __init__(
        self, root: Path | str, *, content_algorithm: str = "md5", sha256: bool = True, disk: Disk | None = None
    ) -> None:
        self._root = Path(root)
        self._disk = disk or Disk()
        self._plan = DigestPlan(content_algorithm, sha256)
        self._objects = self._root / "objects"
        self._temporary = self._root / "temporary"
        self.identity = self._read_mark()
        self._transactions = FileTransactions(
            self._disk, self._root / "transactions", self._plan, self._discard_lone_facts
        )

    @classmethod
    def create(cls, root: Path | str, *, content_algorithm: str = "md5", sha256: bool = True) -> FilesystemStore:
        """Make the store if `root` is missing or empty (the mark last), and open it; an existing store is only opened.

        Raises `NotConfiguredError` when `root` holds anything else.
        """
        path = Path(root)
        if not (path / _MARK).exists():
            _create_tree(path, Disk())
        return cls(path, content_algorithm=content_algorithm, sha256=sha256)

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(is_local=True, min_segment=1, max_segment=None, max_length=None)

    def write(
        self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None
    ) -> StoredObject:
        (outcome,) = self.write_all([Write(content, facts, expected)])
        if isinstance(outcome, CallerError):
            raise outcome
        return outcome

    def write_all(self, writes: Sequence[Write]) -> list[StoredObject | CallerError]:
        """See the contract. All in one bucket, so that the syncs are those of bytes and facts, and one of the directory."""
        bucket = new_storage_id()[:BUCKET_DIGITS]
        with ExitStack() as undo:
            with ExitStack() as opened:
                outcomes = [self._written(each, new_storage_id(bucket), undo, opened) for each in writes]
                written = [outcome for outcome in outcomes if not isinstance(outcome, CallerError)]
                facts = [self._open_facts(stored, opened) for _, stored in written]
                self._disk.sync_all([*(descriptor for descriptor, _ in written), *facts])
            self._publish(bucket, [(self._temporary / stored.storage_id, stored) for _, stored in written])
            undo.pop_all()
        return [outcome if isinstance(outcome, CallerError) else outcome[1] for outcome in outcomes]

    def open(
        self,
        storage_id: str,
        *,
        expected_length: int,
        byte_range: ByteRange | None = None,
        drop_behind: bool = False,
    ) -> StoredFile:
        """See the contract; a range too is a real file, positioned at its first byte."""
        asked = byte_range or ByteRange(0, expected_length)
        if asked.start < 0 or asked.start + asked.length > expected_length:
            raise RangeNotSatisfiableError("the range lies outside the content", length=expected_length)
        descriptor = self._disk.open(self._content(storage_id)) if is_storage_id(storage_id) else None
        if descriptor is None:
            raise self._missing(storage_id)
        reader = self._disk.reader(descriptor, asked.start, asked.length, drop_behind=drop_behind)
        length = self._disk.size(descriptor)
        if length != expected_length:
            reader.close()
            raise StoredObjectMissingError(f"object {storage_id} has {length} bytes, not {expected_length}")
        return reader

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        found = self._look(storage_id, str(self._content(storage_id))) if is_storage_id(storage_id) else None
        if found is None:
            raise self._missing(storage_id)
        return judged(found)

    def set_facts(self, storage_id: str, facts: ContentFacts) -> None:
        """Raises `StoredObjectMissingError` also when the present facts cannot be read."""
        present = self.stat(storage_id)
        if isinstance(present, InvalidObject):
            raise StoredObjectMissingError(f"object {storage_id}: {present.reason}")
        record = encode_object(replace(present, facts=facts))
        through = self._temporary / f"{new_storage_id()}{_FACTS_SUFFIX}"
        self._disk.replace(self._facts(storage_id), record, through=through)

    def remove(self, storage_id: str) -> None:
        """The bytes leave the tree in one step, by way of `temporary`: a crash leaves nothing that a sweep cannot find."""
        if not is_storage_id(storage_id):
            return
        aside = self._temporary / storage_id
        is_there = self._disk.rename(self._content(storage_id), aside)
        if not is_there:
            self._require_mark()
        has_facts = self._disk.unlink(self._facts(storage_id))
        if is_there or has_facts:
            self._disk.sync_directory(self._shard(storage_id))
        self._disk.unlink(aside)

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        return map(judged, self._listed(bucket_prefix))

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        """See the contract; a disk that was unmounted meanwhile is noticed by its mark."""
        return with_end(self._listed(bucket_prefix), self._require_mark)

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        return self._transactions.begin(facts)

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None = None
    ) -> PutTransactionStatus:
        return self._transactions.append(transaction_id, content, expected)

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        return self._transactions.revert(transaction_id)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._transactions.status(transaction_id)

    def commit(self, transaction_id: str, facts: ContentFacts) -> StoredObject:
        """The storage id is the transaction's: a commit that was killed half way is finished by committing again."""
        with self._transactions.changing(transaction_id) as transaction:
            state = transaction.state
            stored = self._stored(transaction_id, state.length, state.checksums, facts)
            if self._disk.status(self._content(transaction_id)):
                self.set_facts(transaction_id, facts)
            else:
                self._publish_transaction(transaction, stored)
            self._transactions.drop(transaction_id)
        return stored

    def abort(self, transaction_id: str) -> None:
        """Raises `StateConflictError` while another request writes to it."""
        self._transactions.abort(transaction_id)

    def stale_transactions(self, older_than: datetime) -> list[str]:
        return self._transactions.stale(older_than)

    def sweep_temporary(self, older_than: datetime) -> int:
        removed = 0
        for name in self._disk.names(self._temporary):
            status = self._disk.status(self._temporary / name)
            if status and status.st_mtime < older_than.timestamp():
                self._discard_leftover(name)
                removed += 1
        return removed + self._transactions.sweep(older_than)

    def free_space(self) -> FreeSpace:
        space = self._disk.space(self._root)
        return FreeSpace(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)

    # Places

    def _shard(self, storage_id: str) -> Path:
        return self._objects / storage_id[:BUCKET_DIGITS]

    def _content(self, storage_id: str) -> Path:
        return self._shard(storage_id) / storage_id

    def _facts(self, storage_id: str) -> Path:
        return self._shard(storage_id) / f"{storage_id}{_FACTS_SUFFIX}"

    # Writing

    def _stored(self, storage_id: str, length: int, checksums: dict[str, str], facts: ContentFacts) -> StoredObject:
        kept = self._plan.select(checksums)
        return StoredObject(storage_id, storage_id[:BUCKET_DIGITS], length, kept, facts, now())

    def _written(
        self, write: Write, storage_id: str, undo: ExitStack, opened: ExitStack
    ) -> tuple[int, StoredObject] | CallerError:
        """The bytes in a temporary file, not synced yet, with its descriptor; or why they are refused."""
        undo.callback(self._discard, storage_id)
        descriptor = self._disk.create(self._temporary / storage_id)
        if descriptor is None:
            raise StorageUnavailableError("the temporary directory of the store has vanished")
        opened.callback(self._disk.close, descriptor)
        try:
            with closing(self._plan.hasher(write.expected)) as hasher:
                measured = MeasuredContent(write.content, write.expected, hasher)
                self._disk.write_all(descriptor, measured)
        except CallerError as error:
            self._discard(storage_id)
            return error
        return descriptor, self._stored(storage_id, measured.result.length, measured.result.checksums, write.facts)

    def _open_facts(self, stored: StoredObject, opened: ExitStack) -> int:
        """The facts in their place, under a name that nobody else can have; not synced yet."""
        path = self._facts(stored.storage_id)
        descriptor = self._disk.create(path)
        if descriptor is None:
            self._make_shards(stored.storage_id)
            descriptor = self._disk.create(path)
        if descriptor is None:
            raise StorageUnavailableError("a directory of the store has vanished")
        opened.callback(self._disk.close, descriptor)
        self._disk.write(descriptor, encode_object(stored))
        return descriptor

    def _publish(self, bucket: str, objects: Sequence[tuple[Path, StoredObject]]) -> None:
        """Durable bytes of this bucket, whose facts are durable, get their names; then the directory of both is synced."""
        for source, stored in objects:
            if not self._disk.rename(source, self._content(stored.storage_id)):
                raise StorageUnavailableError("the written bytes were swept away before they could be published")
        if objects:
            self._disk.sync_directory(self._objects / bucket)

    def _publish_transaction(self, transaction: OpenTransaction, stored: StoredObject) -> None:
        """Like any object; facts left by a killed commit are written anew."""
        self._transactions.cut(transaction)
        self._disk.unlink(self._facts(stored.storage_id))
        with ExitStack() as opened:
            self._disk.sync(self._open_facts(stored, opened))
        self._publish(stored.storage_bucket, [(transaction.content, stored)])

    def _make_shards(self, storage_id: str) -> None:
        """Sixteen neighbours at once: a new store pays the sync of their parent 256 times, not 4096 times."""
        for digit in "0123456789abcdef":
            self._disk.make_directory(self._objects / f"{storage_id[: BUCKET_DIGITS - 1]}{digit}")
        self._disk.sync_directory(self._objects)

    # Removing what is half

    def _discard(self, storage_id: str) -> None:
        """Undo a failed write; what cannot be removed now is found by the sweep."""
        for path in (self._content(storage_id), self._facts(storage_id), self._temporary / storage_id):
            with suppress(StorageError):
                self._disk.unlink(path)

    def _discard_leftover(self, name: str) -> None:
        """A temporary file, and facts which were to go with it (or had lost their bytes by a removal that was killed).

        It is renamed first: a writer that is only slow, not dead, then fails to publish instead of losing its facts.
        """
        storage_id = name.removesuffix(_SWEPT_SUFFIX)
        aside = self._temporary / f"{storage_id}{_SWEPT_SUFFIX}"
        self._disk.rename(self._temporary / name, aside)
        self._discard_lone_facts(storage_id)
        self._disk.unlink(aside)

    def _discard_lone_facts(self, storage_id: str) -> None:
        if is_storage_id(storage_id) and not self._disk.status(self._content(storage_id)):
            self._disk.unlink(self._facts(storage_id))

    # Reading

    def _listed(self, bucket_prefix: str) -> Iterator[ListedObject | InvalidObject]:
        return chain.from_iterable(self._listed_several(bucket_prefix))

    def _listed_several(self, bucket_prefix: str) -> Iterator[list[ListedObject | InvalidObject]]:
        """Holds the names of one directory in memory."""
        buckets = self._disk.names(self._objects)
        for bucket in buckets[bisect_left(buckets, bucket_prefix) :]:
            if not bucket.startswith(bucket_prefix):
                break
            shard = self._objects / bucket
            with self._disk.directory(shard) as directory:
                names = self._disk.names(shard)
                for start in range(0, len(names), _AHEAD):
                    yield self._listed_names(bucket, names[start : start + _AHEAD], directory)

    def _listed_names(self, bucket: str, names: Sequence[str], directory: int) -> list[ListedObject | InvalidObject]:
        found: list[ListedObject | InvalidObject] = []
        facts = (name for name in names if name.endswith(_FACTS_SUFFIX))
        with self._disk.opened_ahead(facts, directory) as opened:
            for name in names:
                if name.endswith(_FACTS_SUFFIX):
                    continue
                if not is_storage_id(name):
                    found.append(InvalidObject(name, bucket, "no object of this store has such a name"))
                # An id leads to one shard only: in another nobody would look for it.
                elif name[:BUCKET_DIGITS] == bucket and (listed := self._look(name, name, directory, opened)):
                    found.append(listed)
        return found

    def _look(
        self, storage_id: str, path: str, directory: int | None = None, opened: dict[str, int] | None = None
    ) -> ListedObject | None:
        """None when there are no bytes, or are none any more once their facts are found missing; facts may be `opened` already."""
        status = self._disk.status(path, directory)
        if status is None:
            return None
        name = f"{path}{_FACTS_SUFFIX}"
        facts = opened.pop(name) if opened and name in opened else self._disk.open(name, directory=directory)
        record = self._disk.read_open(facts) if facts is not None else None
        if record is None and self._disk.status(path, directory) is None:
            return None
        return ListedObject(storage_id[:BUCKET_DIGITS], storage_id, status.st_size, record)

    def _missing(self, storage_id: str) -> StorageError:
        """Missing bytes are a loss only if the store itself is there."""
        self._require_mark()
        return StoredObjectMissingError("the store has no such object", storage_id=storage_id)

    # The mark

    def _require_mark(self) -> None:
        if self._disk.status(self._root / _MARK) is None:
            raise StorageUnavailableError("the store has lost its mark: is the disk mounted?")

    def _read_mark(self) -> uuid.UUID:
        record = self._disk.read(self._root / _MARK)
        if record is None:
            raise NotConfiguredError(
                f"no store in {self._root}: {_MARK} is missing. Is the disk mounted? A new store is made by create()."
            )
        try:
            return uuid.UUID(json.loads(record)["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise NotConfiguredError(f"{_MARK} in {self._root} cannot be read: {error}") from error


def _create_tree(root: Path, disk: Disk) -> None:
    """The mark comes last, so that a creation which was killed is simply repeated."""
    root.mkdir(mode=0o750, parents=True, exist_ok=True)
    directories = ("objects", "temporary", "transactions")
    foreign = set(disk.names(root)) - {*directories, "lost+found"}
    if foreign:
        raise NotConfiguredError(f"{root} is not empty and not a store: it holds {min(foreign)!r}")
    for name in directories:
        disk.make_directory(root / name)
    mark = json.dumps({"identity": str(uuid.uuid4()), "version": 1})
    disk.replace(root / _MARK, f"{mark}\n".encode(), through=root / "temporary" / _MARK)
    disk.sync_directory(root.parent)
