"""The object store: S3 and what speaks like it (Ceph), by way of the django-storages backend.

Nothing else imports its libraries, and none of their errors leaves this module. Which key holds what: `bucketstore`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from hashlib import md5
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from storages.backends.s3 import S3Storage

from datamodel.errors import StateConflictError, StorageFullError, StorageUnavailableError, StoredObjectMissingError
from site_service.storage.bucket import ListedKey, OpenedKey, PendingUpload
from site_service.storage.bucketstore import DEFAULT_PART_SIZE, BucketStore
from site_service.storage.contract import ByteRange

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, MultipartUploadTypeDef

_FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "XMinioStorageFull", "507"})
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})

# Bounded in time and tries. Checksums of our own choice (Content-MD5): the client's newer default is a trailer that
# stores other than Amazon's refuse.
_CONFIG = Config(
    connect_timeout=10,
    read_timeout=120,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=64,
    tcp_keepalive=True,
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


@contextmanager
def _failures(action: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _FULL:
            raise StorageFullError(f"the object store is full: could not {action}: {code}") from error
        raise StorageUnavailableError(f"the object store could not {action}: {code}") from error
    except BotoCoreError as error:
        raise StorageUnavailableError(f"the object store could not {action}: {type(error).__name__}") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


class _Body:
    """A response being read; it must bring exactly `length` bytes."""

    def __init__(self, response: GetObjectOutputTypeDef) -> None:
        self._stream = response["Body"]

    def read(self, size: int = -1, /) -> bytes:
        with _failures("read"):
            return self._stream.read(None if size < 0 else size)

    def close(self) -> None:
        self._stream.close()


class S3Bucket:
    """A `Bucket` below a prefix of an S3 bucket."""

    def __init__(self, client: S3Client, name: str, prefix: str = "") -> None:
        self.client = client
        self._name = name
        self._prefix = prefix

    @classmethod
    def from_storage(cls, storage: S3Storage) -> S3Bucket:
        """With the bucket, credentials, prefix (`location`) and client configuration of a django-storages backend."""
        storage.client_config = _CONFIG.merge(storage.client_config)
        bucket = storage.bucket
        prefix = storage.location.strip("/")
        return cls(bucket.meta.client, bucket.name, f"{prefix}/" if prefix else "")

    def put(self, key: str, content: bytes, *, replacing: str | None = None) -> str:
        # Without its quotes: Ceph (seen with 16) compares them too and would never match; S3 takes either form.
        condition: Any = {"IfMatch": replacing.strip('"')} if replacing else {}
        with _failures("put an object"):
            try:
                response = self.client.put_object(
                    Bucket=self._name,
                    Key=self._prefix + key,
                    Body=content,
                    ContentMD5=_content_md5(content),
                    **condition,
                )
            except ClientError as error:
                if replacing and _code(error) in _LOST_RACE | _MISSING:
                    raise StateConflictError("another request changed this put transaction") from error
                raise
        return response["ETag"]

    def get(self, key: str) -> tuple[bytes, str] | None:
        response = self._get(key, {})
        if response is None:
            return None
        with closing(_Body(response)) as body:
            return body.read(), response["ETag"]

    def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedKey | None:
        asked = byte_range and f"bytes={byte_range.start}-{byte_range.start + byte_range.length - 1}"
        response = self._get(key, {"Range": asked} if asked else {})
        if response is None:
            return None
        total = response["ContentRange"].rpartition("/")[2] if asked else response["ContentLength"]
        return OpenedKey(_Body(response), int(total))

    def length(self, key: str) -> int | None:
        with _failures("look at an object"):
            try:
                return self.client.head_object(Bucket=self._name, Key=self._prefix + key)["ContentLength"]
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise

    @_failures("delete an object")
    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self._name, Key=self._prefix + key)

    def list(self, prefix: str) -> Iterator[ListedKey]:
        """A page that says there is more but not where, that counts other keys than it holds, or keys out of order, are failures:
        never a short listing.
        """
        token: Any = {}
        last = ""
        while True:
            with _failures("list objects"):
                page = self.client.list_objects_v2(Bucket=self._name, Prefix=self._prefix + prefix, **token)
            if page.get("KeyCount", len(page.get("Contents", ()))) != len(page.get("Contents", ())):
                raise StorageUnavailableError("the object store counts other keys than it lists")
            for entry in page.get("Contents", ()):
                key = entry["Key"].removeprefix(self._prefix)
                if key <= last:
                    raise StorageUnavailableError("the object store lists keys out of order")
                last = key
                yield ListedKey(key, entry["Size"], entry["LastModified"])
            if not page.get("IsTruncated"):
                return
            if "NextContinuationToken" not in page:
                raise StorageUnavailableError("the object store cut a listing short")
            token = {"ContinuationToken": page["NextContinuationToken"]}

    @_failures("begin an upload")
    def begin_upload(self, key: str) -> str:
        return self.client.create_multipart_upload(Bucket=self._name, Key=self._prefix + key)["UploadId"]

    @_failures("upload a part")
    def upload_part(self, key: str, upload_id: str, number: int, content: bytes) -> str:
        return self.client.upload_part(
            Bucket=self._name,
            Key=self._prefix + key,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,
            ContentMD5=_content_md5(content),
        )["ETag"]

    @_failures("copy a part")
    def copy_part(self, key: str, upload_id: str, number: int, source: str, byte_range: ByteRange) -> str:
        response = self.client.upload_part_copy(
            Bucket=self._name,
            Key=self._prefix + key,
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self._name, "Key": self._prefix + source},
            CopySourceRange=f"bytes={byte_range.start}-{byte_range.start + byte_range.length - 1}",
        )
        return response["CopyPartResult"]["ETag"]

    @_failures("complete an upload")
    def complete_upload(self, key: str, upload_id: str, tags: Sequence[str]) -> None:
        self.client.complete_multipart_upload(
            Bucket=self._name,
            Key=self._prefix + key,
            UploadId=upload_id,
            MultipartUpload={"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]},
        )

    @_failures("abort an upload")
    def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(self.client.exceptions.NoSuchUpload):
            self.client.abort_multipart_upload(Bucket=self._name, Key=self._prefix + key, UploadId=upload_id)

    def pending_uploads(self) -> Iterator[PendingUpload]:
        """Judged by the newest part: an upload may be long and alive. Others end while they are looked at: those are left out."""
        with _failures("list uploads"):
            for page in self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._name, Prefix=self._prefix
            ):
                for upload in page.get("Uploads", ()):
                    if touched := self._touched_at(upload):
                        yield PendingUpload(upload["Key"].removeprefix(self._prefix), upload["UploadId"], touched)

    def _touched_at(self, upload: MultipartUploadTypeDef) -> datetime | None:
        """When its last part came, else when it was begun; None once it has ended."""
        key, upload_id = upload["Key"], upload["UploadId"]
        pages = self.client.get_paginator("list_parts").paginate(Bucket=self._name, Key=key, UploadId=upload_id)
        parts = (part["LastModified"] for page in pages for part in page.get("Parts", ()))
        try:
            return max(parts, default=upload["Initiated"])
        except self.client.exceptions.NoSuchUpload:
            return None

    def _get(self, key: str, options: Mapping[str, Any]) -> GetObjectOutputTypeDef | None:
        with _failures("get an object"):
            try:
                return self.client.get_object(Bucket=self._name, Key=self._prefix + key, **options)
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                if _code(error) in {"InvalidRange", "416"}:
                    raise StoredObjectMissingError("the object is shorter than recorded") from error
                raise


def _content_md5(content: bytes) -> str:
    return b64encode(md5(content, usedforsecurity=False).digest()).decode()


class ObjectStore(BucketStore):
    """An `ArtifactStore` in the bucket that a django-storages S3 backend with these `options` would use.

    Beyond 10,000 parts an object cannot grow: `part_size` decides the greatest length (16 MiB: 156 GiB) and the memory of
    one upload (two parts).
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        content_algorithm: str = "md5",
        sha256: bool = True,
        part_size: int = DEFAULT_PART_SIZE,
    ) -> None:
        self.bucket = S3Bucket.from_storage(S3Storage(**options))
        super().__init__(self.bucket, content_algorithm=content_algorithm, sha256=sha256, part_size=part_size)
