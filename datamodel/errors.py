"""Every failure this project raises on purpose; `problems.py` maps each to HTTP, and nothing else does.

The tree says who failed:

    InventoryError
    ├── CallerError                     the request is wrong; repeating it unchanged will not help
    │   ├── InvalidUriError             malformed artifact URI or namespace
    │   ├── InvalidChecksumError        malformed or unknown checksum
    │   ├── InvalidRequestError         malformed header, parameter or body
    │   ├── NotAuthenticatedError       no credentials, or invalid ones
    │   ├── NotPermittedError           known caller, but not granted
    │   ├── TooManyRequestsError        a rate limit is used up (retry)
    │   ├── ReadOnlyError               the site takes no writes now
    │   ├── RouteNotFoundError          no such address in this service
    │   ├── MethodNotAllowedError       the address does not know this method
    │   ├── NotAcceptableError          no representation that the caller accepts
    │   ├── UnsupportedMediaTypeError   a body of a type that is not understood
    │   ├── ArtifactNotFoundError       no such artifact (here)
    │   ├── TransactionNotFoundError    no such put transaction
    │   ├── CursorGoneError             the cursor is of another epoch or above the horizon
    │   ├── HistoryGoneError            events after the cursor have expired
    │   ├── MomentGoneError             the past that was asked for is forgotten here
    │   ├── StateConflictError          the state of the thing forbids it
    │   ├── PreconditionFailedError     If-Match or If-None-Match does not hold
    │   ├── ChecksumMismatchError       content is not what was declared
    │   ├── LengthMismatchError         content is longer than declared
    │   ├── ShortBodyError              the body ended before it was complete (retry)
    │   ├── EmptyContentError           nothing was sent where content is required
    │   ├── ContentTooLargeError        over the limit
    │   └── RangeNotSatisfiableError    the range lies outside the content
    ├── InventoryStateError             the inventory itself
    │   ├── RaceLostError               another request won (retry)
    │   ├── NotConfiguredError          a setting is missing or contradictory
    │   ├── DeletionBrakeError          more would be removed than passes unasked
    │   ├── NotReadyError               this process cannot serve now (retry)
    │   ├── RestoringError              restored from a backup, and not yet back in the federation (retry)
    │   └── DatabaseUnavailableError    the database does not answer (retry)
    ├── StorageError                    the store at this site
    │   ├── StorageUnavailableError     not reachable now (retry)
    │   ├── StorageFullError            no space left
    │   └── StoredObjectMissingError    the inventory promises bytes which the store does not have
    └── RemoteError                     another inventory or service
        ├── RemoteUnavailableError      unreachable, too slow, cut or answering 5xx (retry)
        ├── RemoteRefusedError          it refused our credentials or request
        ├── RemoteProtocolError         it answered nonsense, or not what it promised
        ├── PermissionUnknownError      a permission service cannot be asked: refused (retry)
        └── PositionNotReachedError     news that the caller has seen have not arrived here yet (retry)
"""

from __future__ import annotations

from typing import ClassVar


class InventoryError(Exception):
    """Base of all; `code` is stable and documented, `retryable` says whether the same request may succeed later.

    `fields` are extra facts for the machine reader; they must hold no secret.
    """

    code: ClassVar[str] = "inventory_error"
    retryable: ClassVar[bool] = False
    # Whether somebody wanted what is not permitted (the audit counts such attempts).
    is_refusal: bool = False

    def __init__(self, detail: str, **fields: str | int | None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields


class CallerError(InventoryError):
    """The request is wrong."""

    code = "caller_error"


class InvalidUriError(CallerError):
    """A malformed artifact URI or namespace."""

    code = "invalid_uri"


class InvalidChecksumError(CallerError):
    """A malformed checksum or one of an unknown algorithm."""

    code = "invalid_checksum"


class InvalidRequestError(CallerError):
    """A malformed header, parameter or body."""

    code = "invalid_request"


class NotAuthenticatedError(CallerError):
    """No credentials, or invalid ones."""

    code = "not_authenticated"
    is_refusal = True


class NotPermittedError(CallerError):
    """The caller is known but not granted this."""

    code = "not_permitted"
    is_refusal = True


class TooManyRequestsError(CallerError):
    """A rate limit is used up; `retry_after` says for how many seconds."""

    code = "too_many_requests"
    retryable = True


class ReadOnlyError(CallerError):
    """The site takes no writes now."""

    code = "read_only"
    is_refusal = True


class RouteNotFoundError(CallerError):
    """No such address in this service."""

    code = "route_not_found"


class MethodNotAllowedError(CallerError):
    """The address does not know this method (`allow` in the fields)."""

    code = "method_not_allowed"


class NotAcceptableError(CallerError):
    """There is no representation that the caller accepts."""

    code = "not_acceptable"


class UnsupportedMediaTypeError(CallerError):
    """The body has a type that is not understood here."""

    code = "unsupported_media_type"


class ArtifactNotFoundError(CallerError):
    """No such artifact, or none with bytes here."""

    code = "artifact_not_found"


class TransactionNotFoundError(CallerError):
    """No such put transaction: never begun, finished or expired."""

    code = "transaction_not_found"


class CursorGoneError(CallerError):
    """The cursor is of another epoch or above the horizon; start again without one."""

    code = "cursor_gone"


class HistoryGoneError(CallerError):
    """Events after the cursor have expired: go on from `cursor` (in the fields), and reconcile."""

    code = "history_gone"


class MomentGoneError(CallerError):
    """The past that was asked for is forgotten here; `since` says from when it is known."""

    code = "moment_gone"


class StateConflictError(CallerError):
    """The state of the thing forbids the operation."""

    code = "state_conflict"


class PreconditionFailedError(CallerError):
    """If-Match or If-None-Match does not hold."""

    code = "precondition_failed"


class ChecksumMismatchError(CallerError):
    """The content is not what was declared; nothing was stored."""

    code = "checksum_mismatch"


class LengthMismatchError(CallerError):
    """The content is longer than declared; nothing was stored."""

    code = "length_mismatch"


class ShortBodyError(CallerError):
    """The body ended before it was complete; nothing was stored."""

    code = "short_body"
    retryable = True


class EmptyContentError(CallerError):
    """Nothing was sent where content is required."""

    code = "empty_content"


class ContentTooLargeError(CallerError):
    """The content or request is over a limit."""

    code = "content_too_large"


class RangeNotSatisfiableError(CallerError):
    """The requested range lies outside the content (`length` in the fields)."""

    code = "range_not_satisfiable"


class InventoryStateError(InventoryError):
    """The inventory itself cannot do it."""

    code = "inventory_state"


class RaceLostError(InventoryStateError):
    """Another request won; the same request may succeed now."""

    code = "race_lost"
    retryable = True


class NotConfiguredError(InventoryStateError):
    """A setting is missing or contradicts another."""

    code = "not_configured"


class DeletionBrakeError(InventoryStateError):
    """More would be removed in a day than passes unasked; nothing was removed (`source`, `namespace`, `removed`, `more` in the fields)."""

    code = "deletion_brake"
    is_refusal = True


class NotReadyError(InventoryStateError):
    """This process cannot serve now (`failing` in the fields names the checks)."""

    code = "not_ready"
    retryable = True


class RestoringError(InventoryStateError):
    """The inventory was restored from a backup and is closed until it agrees with its peers again."""

    code = "restoring"
    retryable = True


class DatabaseUnavailableError(InventoryStateError):
    """The database does not answer."""

    code = "database_unavailable"
    retryable = True


class StorageError(InventoryError):
    """The store at this site failed."""

    code = "storage_error"


class StorageUnavailableError(StorageError):
    """The store cannot be reached now."""

    code = "storage_unavailable"
    retryable = True


class StorageFullError(StorageError):
    """No space left."""

    code = "storage_full"


class StoredObjectMissingError(StorageError):
    """The inventory promises bytes which the store does not have, or has in another length."""

    code = "stored_object_missing"


class RemoteError(InventoryError):
    """Another inventory or service failed."""

    code = "remote_error"


class RemoteUnavailableError(RemoteError):
    """Unreachable, too slow, cut, or answering 5xx."""

    code = "remote_unavailable"
    retryable = True


class RemoteRefusedError(RemoteError):
    """It refused our credentials or our request."""

    code = "remote_refused"


class RemoteProtocolError(RemoteError):
    """It answered nonsense, or not what it promised."""

    code = "remote_protocol"


class PermissionUnknownError(RemoteError):
    """A permission service that might permit it cannot be asked, so it is refused."""

    code = "permission_unknown"
    retryable = True


class PositionNotReachedError(RemoteError):
    """News that the caller has already seen have not arrived here within the time limit."""

    code = "position_not_reached"
    retryable = True
