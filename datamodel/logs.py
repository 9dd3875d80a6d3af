"""Structured log lines: `time level logger event=… key=value`; one END line per unit of work with its reason."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from datamodel.errors import InventoryError

request_id: ContextVar[str] = ContextVar("request_id", default="")

# Signed tokens (see `preauth.py`) and those of the legacy grammar, wherever they stand; they must never reach a log. The
# lengths (of an Ed25519 and an RSA signature) keep names of files apart. Each run of characters is looked at once: a long path
# must not cost seconds.
_TOKENS = re.compile(
    r"(?<![\w.-])1\.[\w-]{1,32}\.[\w-]{16,}\.[\w-]{80,}"
    r"|(?<![\w=-])(?:[\w=-]|%3D){20,}+(?:~|%7E)(?:[\w=-]|%3D){100,}",
    re.ASCII,
)

_QUOTED = re.compile(r'[\s"=]')

_STDERR = 2

# No line says where in the code it was written nor by which thread: to find that out costs half of a line (Python's logging HOWTO).
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def mask_tokens(text: str) -> str:
    """`text` with signed tokens replaced by `***`."""
    return _TOKENS.sub("***", text)


class LineFormatter(logging.Formatter):
    """One line per record; tokens masked; `extra={"facts": {...}}` appended as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        facts: dict[str, object] = dict(getattr(record, "facts", {}))
        if identity := request_id.get():
            facts["request"] = identity
        pairs = "".join(f" {key}={_value(value)}" for key, value in facts.items() if value is not None)
        line = f"{when} {record.levelname} {record.name} {record.getMessage()}{pairs}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return mask_tokens(line)


class LineHandler(logging.Handler):
    """Writes each record to standard error at once and by itself: no thread waits for the lines of others."""

    def handle(self, record: logging.LogRecord) -> bool:
        passed = bool(self.filter(record))
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            left = memoryview(f"{self.format(record)}\n".encode(errors="backslashreplace"))
            while left:
                left = left[os.write(_STDERR, left) :]
        except Exception:  # noqa: BLE001  # as all handlers: a log that fails must not fail the work
            self.handleError(record)


def _value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not _QUOTED.search(text) else json.dumps(text)


class Work:
    """Facts of one unit of work, collected while it runs."""

    def __init__(self, event: str, facts: dict[str, object]) -> None:
        self.event = event
        self.facts = facts
        self.reason = "done"

    def note(self, **facts: object) -> None:
        self.facts.update(facts)


@contextmanager
def unit_of_work(logger: logging.Logger, event: str, **facts: object) -> Iterator[Work]:
    """Logs exactly one END line, with seconds and reason, however the block ends; errors pass through."""
    work = Work(event, dict(facts))
    started = time.monotonic()
    result = "failed"
    try:
        yield work
        result = "ok"
    except InventoryError as error:
        work.reason = error.code
        work.note(detail=error.detail)
        raise
    except BaseException as error:
        work.reason = type(error).__name__
        raise
    finally:
        work.note(seconds=f"{time.monotonic() - started:.3f}", result=result, reason=work.reason)
        level = logging.INFO if result == "ok" else logging.WARNING
        logger.log(level, "END event=%s", event, extra={"facts": work.facts})
