"""Rate limits: token buckets in Redis, one round trip for all that a request is charged to; none at all where no budget is set.

Charged are requests whose caller is asked for: not probes, not pages of the admin, and never the use of a signed URL, so that no
transfer is broken which has begun. Peers and operators (grants harvest, operate) are not counted. Without Redis nothing is refused.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from prometheus_client import Counter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from datamodel.counters import registry
from datamodel.env import Rate
from datamodel.errors import TooManyRequestsError
from datamodel.grants import Grant
from datamodel.permissions import ANONYMOUS, Caller
from datamodel.proxies import client_address

logger = logging.getLogger(__name__)

_UNCOUNTED = frozenset({Grant.HARVEST, Grant.OPERATE})
_PATIENCE_SECONDS = 0.25
# After a failure Redis is left alone for so long: requests do not wait for it one after the other.
_PAUSE_SECONDS = 1.0
# Who guesses a secret is limited without Redis, too.
_GUARDS = frozenset({"failed", "login", "pairing"})
# Of addresses that one process counts then.
_MOST_COUNTED = 10_000

refused = Counter("inventory_rate_limited", "Requests refused with 429, by budget", ["budget"], registry=registry)
unavailable = Counter(
    "inventory_rate_limits_unavailable",
    "Times that Redis did not answer, so that callers and addresses were not limited",
    registry=registry,
)

# A bucket is kept as the time at which it will be full again (GCRA): one number, which expires by itself. All or none are charged.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local found, refused = {}, 0
for i, key in ipairs(KEYS) do
    local quota, window, cost = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]) * 1000000, tonumber(ARGV[3*i])
    local each = window / quota
    local full = math.max(tonumber(redis.call('GET', key) or 0), now)
    local wait = full + each * math.max(cost, 1) - window - now
    if wait > 0 then refused = 1 end
    found[i] = {key, full, each, window, cost, wait}
end
local answer = {}
for i, one in ipairs(found) do
    local full = one[2]
    if refused == 0 and one[5] > 0 then
        full = full + one[3] * one[5]
        redis.call('SET', one[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
    end
    answer[i] = {math.floor((one[4] - full + now) / one[3] + 0.000001), math.ceil((full - now) / 1000),
                 math.max(math.ceil(one[6] / 1000), 0)}
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one caller or address has left; `cost` 0 only asks whether there is anything."""

    budget: str
    whose: str
    rate: Rate
    cost: int = 1

    @property
    def key(self) -> str:
        """The braces keep all keys of an inventory on one node of a cluster."""
        whose = hashlib.blake2b(self.whose.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        return f"{{{settings.INVENTORY_NAME}:rate}}:{self.budget}:{whose}"


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket after a charge: requests left, seconds until it is full, seconds until what was refused would pass (0: it passed)."""

    bucket: Bucket
    remaining: int
    full_after: float
    wait: float


def charge_caller(request: HttpRequest, caller: Caller) -> None:
    """One request of a known or anonymous caller. Raises `TooManyRequestsError`."""
    if caller.method == "signed-url" or caller.grants & _UNCOUNTED:
        return
    buckets = _of_address(request, "address", settings.INVENTORY_RATE_PER_ADDRESS)
    if caller.name != ANONYMOUS and (rate := settings.INVENTORY_RATE_PER_CALLER):
        buckets.append(Bucket("caller", f"{caller.method}:{caller.name}", rate))
    _charge(request, buckets)


def charge_failure(request: HttpRequest) -> None:
    """Credentials that were no good. Raises `TooManyRequestsError` when this address has sent too many of them.

    Good ones from the same address are never refused for it: many may be behind one address.
    """
    _charge(request, _of_address(request, "failed", settings.INVENTORY_RATE_FAILED))


def check_login(request: HttpRequest) -> None:
    """Before a password is looked at. Raises `TooManyRequestsError` after too many wrong ones from this address."""
    _charge(request, _of_address(request, "login", settings.INVENTORY_RATE_FAILED, cost=0))


def charge_login(request: HttpRequest) -> None:
    """A password was wrong."""
    _levels(_of_address(request, "login", settings.INVENTORY_RATE_FAILED))


def charge_pairing(request: HttpRequest) -> None:
    """Somebody shows a pairing code, a good one or not. Raises `TooManyRequestsError` before anything is looked at.

    Those whose address nobody knows share one budget.
    """
    rate, address = settings.INVENTORY_RATE_FAILED, client_address(request)
    if rate is not None:
        _charge(request, [Bucket("pairing", network_of(address) if address else "unknown", rate)])


def set_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, structured fields), if anything was counted."""
    levels: Sequence[Level] = getattr(request, "rate_levels", ())
    if not levels:
        return
    buckets = [level.bucket for level in levels]
    response["RateLimit-Policy"] = ", ".join(f'"{b.budget}";q={b.rate.requests};w={b.rate.seconds}' for b in buckets)
    response["RateLimit"] = ", ".join(
        f'"{level.bucket.budget}";r={level.remaining};t={math.ceil(level.full_after)}' for level in levels
    )


def _of_address(request: HttpRequest, budget: str, rate: Rate | None, *, cost: int = 1) -> list[Bucket]:
    address = client_address(request)
    return [Bucket(budget, network_of(address), rate, cost)] if rate is not None and address else []


def network_of(address: str) -> str:
    """An IPv4 address; of IPv6 the /64 that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def _charge(request: HttpRequest, buckets: Sequence[Bucket]) -> None:
    levels = _levels(buckets)
    if not levels:
        return
    request.rate_levels = levels  # type: ignore[attr-defined]  # read by `set_headers`
    worst = max(levels, key=lambda level: level.wait)
    if worst.wait > 0:
        refused.labels(worst.bucket.budget).inc()
        rate = worst.bucket.rate
        raise TooManyRequestsError(
            f"more than {rate.requests} requests in {rate.seconds} seconds ({worst.bucket.budget}); wait before the next one",
            retry_after=math.ceil(worst.wait),
        )


def _levels(buckets: Sequence[Bucket]) -> list[Level]:
    if not buckets:
        return []
    if time.monotonic() < _pause.until:
        return _counted_here(buckets)
    arguments = [number for one in buckets for number in (one.rate.requests, one.rate.seconds, one.cost)]
    try:
        answer = _script()(keys=[one.key for one in buckets], args=arguments)
    except (RedisError, OSError) as error:
        unavailable.inc()
        _pause.until = time.monotonic() + _PAUSE_SECONDS
        facts = {"result": "failed", "reason": f"{type(error).__name__}: {error}"}
        logger.warning("END event=rate_limit", extra={"facts": facts})
        return _counted_here(buckets)
    found = zip(buckets, answer, strict=True)
    return [Level(bucket, max(left, 0), full / 1000, wait / 1000) for bucket, (left, full, wait) in found]


def _counted_here(buckets: Sequence[Bucket]) -> list[Level]:
    return [_own.charge(one, time.monotonic()) for one in buckets if one.budget in _GUARDS]


class OwnBuckets:
    """What this process counts while Redis does not answer, by the same rule; of so many addresses, the latest."""

    def __init__(self, most: int = _MOST_COUNTED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._full_at: dict[str, float] = {}

    def charge(self, bucket: Bucket, now: float) -> Level:
        quota, window = bucket.rate.requests, bucket.rate.seconds
        each = window / quota
        with self._lock:
            full = max(self._full_at.pop(bucket.key, 0.0), now)
            wait = max(full + each * max(bucket.cost, 1) - window - now, 0.0)
            if not wait:
                full += each * bucket.cost
            if full > now:
                self._full_at[bucket.key] = full
            if len(self._full_at) > self._most:
                del self._full_at[next(iter(self._full_at))]
        return Level(bucket, max(math.floor((window - full + now) / each + 1e-6), 0), full - now, wait)

    def clear(self) -> None:
        with self._lock:
            self._full_at.clear()


class _Pause:
    """Until when Redis is left alone."""

    until = 0.0


_pause = _Pause()
_own = OwnBuckets()


@functools.cache
def _script() -> redis.commands.core.Script:
    client = redis.Redis.from_url(
        settings.INVENTORY_DRAMATIQ_URL,
        socket_timeout=_PATIENCE_SECONDS,
        socket_connect_timeout=_PATIENCE_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return client.register_script(_SCRIPT)


def forget() -> None:
    """The connection, what is known of its health, and what was counted without it."""
    _script.cache_clear()
    _pause.until = 0.0
    _own.clear()
