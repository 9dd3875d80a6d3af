"""Processes that work for this one: they have its configuration, and end with it however it ends."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import django


def process_pool(number: int) -> ProcessPoolExecutor:
    """So many, with Django; the first work starts them. Work and results are pickled.

    New programs: a fork would share this process's connections, and the locks of its threads.
    """
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    # Ctrl-C reaches all of a terminal's programs: the one that gave the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    django.setup()


def _end_with_parent() -> None:
    """Of itself a process waits for work for ever: the pipe that it comes by is open in the others too."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
