"""Gunicorn's configuration for both roles: `gunicorn -c python:datamodel.webserver site_service.wsgi`.

Threads, because transfers wait for disks and peers; gunicorn's thread worker, because it reports a body that was cut (house,
decision 3); ours, because it lets a view refuse or redirect a body before it is sent.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile

from gunicorn.config import Config
from gunicorn.glogging import Logger

from datamodel import env, memory
from datamodel.logs import LineFormatter

# Of memory, so that a full disk does not stop the service.
_MEMORY = "/dev/shm"  # noqa: S108  # a directory of ours in it, which only we may read, and gunicorn's heartbeat file

memory.share_arenas()
memory.reuse_blocks()


def _descriptors() -> int:
    """As many as this process may have; a service manager gives 1,024 to begin with, and more to whoever asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


class LineLogger(Logger):
    """Gunicorn's own messages in lines as all others: a request that it could not read is quoted without its token."""

    def setup(self, cfg: Config) -> None:
        """Gunicorn's hook."""
        super().setup(cfg)  # type: ignore[no-untyped-call]  # gunicorn has no types
        for handler in self.error_log.handlers:
            handler.setFormatter(LineFormatter())


bind = env.words("INVENTORY_BIND", "127.0.0.1:8000")
worker_class = "datamodel.worker.InvitingWorker"
workers = env.integer("INVENTORY_WORKERS", 1, minimum=1)
if workers > 1:
    # Whichever is asked for metrics tells what all have counted: `counters`. Before anything of that library is loaded.
    _counted = tempfile.mkdtemp(prefix="inventory-counters-", dir=_MEMORY)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _counted
threads = env.integer("INVENTORY_THREADS", 32, minimum=1)
# Each may have a file open, too; whoever finds no descriptor left ends the worker.
worker_connections = min(
    env.integer("INVENTORY_CONNECTIONS", 4096, minimum=threads + 1), max((_descriptors() - 256) // 2, threads + 1)
)
# The worker's heartbeat; a thread that transfers for hours does not stop it.
timeout = 60
graceful_timeout = env.integer("INVENTORY_GRACEFUL_SECONDS", 30, minimum=1)
keepalive = 20
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# One END line per request comes from the application, with tokens masked.
accesslog = None
errorlog = "-"
logger_class = LineLogger
loglevel = "warning"
proc_name = f"inventory-{env.text('INVENTORY_NAME', env.text('INVENTORY_ROLE', 'site'))}"
worker_tmp_dir = _MEMORY


def on_exit(server: object) -> None:
    """Gunicorn's hook: the main process ends."""
    del server
    if workers > 1:
        shutil.rmtree(_counted, ignore_errors=True)
