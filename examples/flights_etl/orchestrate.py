"""The whole demo: both sides at work, their progress on the screen, then the proof.

Normally each side is a process of its own and may be killed by anyone at any time. With the memory broker both sides
live in one process, as nothing else can reach its tasks.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import IO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.flights_etl import data
from examples.flights_etl.child import PROGRAM, Child
from examples.flights_etl.errors import DemoError
from examples.flights_etl.settings import Settings

STALLED = 300.0
_TICK = 0.1

Show = Callable[[int, int], None]


def run(settings: Settings, *, keep: bool) -> int:
    """Run the demo and return its exit status: 0 when every flight is in the sink once, 1 otherwise.

    Args:
        settings: the choices of this run, passed on to every process.
        keep: go on with what an earlier run left in the directory instead of starting afresh.

    Raises:
        DemoError: the flights could not be fetched, the directory is in use, one side dies whenever it is started, or
            nothing has moved for `STALLED` seconds.
        nova.ConfigError: the broker chosen does not exist or its options are wrong; nothing was started.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop both sides, then end
    with settings.held() as lock:
        if not keep:
            settings.wipe()
        settings.open_queue()  # only checks its options: better one clear error here than one from each side
        data.fetch(settings.cache)
        began = time.monotonic()
        with _bars() as (show, say):
            if settings.in_one_process:
                _run_in_one_process(settings, show)
            else:
                _run_in_two_processes(settings, lock, show, say)
            seconds = time.monotonic() - began
        return _verify(settings, None if keep else seconds)


def _run_in_two_processes(settings: Settings, lock: IO[str], show: Show, say: Callable[[str], None]) -> None:
    """Tend both sides until the sink holds every flight, then stop the loader."""
    with ExitStack() as children:
        enqueuing = Child("enqueue", settings, lock, say, ends=True)
        children.callback(enqueuing.stop)
        loading = Child("load", settings, lock, say, ends=False)
        children.callback(loading.stop)
        say("kill -9 either of them whenever you like")
        feed = _watchdog()
        while not (enqueuing.done and loading.rows >= data.TOTAL):
            time.sleep(_TICK)
            enqueuing.tend()
            loading.tend()
            show(enqueuing.rows, loading.rows)
            feed(enqueuing.rows + loading.rows)


def _run_in_one_process(settings: Settings, show: Show) -> None:
    """Run the enqueuing side in a thread beside the loader's."""
    # Not at the top of the module: a process that only starts the others has no use for a ClickHouse client.
    from examples.flights_etl.enqueue import enqueue_rest
    from examples.flights_etl.load import loading
    from examples.flights_etl.sink import Sink

    enqueued = 0

    def report(rows: int) -> None:
        nonlocal enqueued
        enqueued = rows

    with (
        Sink(settings.sink) as sink,
        settings.open_queue() as queue,
        ThreadPoolExecutor(1, "demo-enqueue") as threads,
        loading(queue, sink),
    ):
        enqueuing = threads.submit(enqueue_rest, queue, settings, report)
        feed = _watchdog()
        stored = 0
        while not (stored >= data.TOTAL and enqueuing.done()):
            time.sleep(_TICK)
            stored = sink.count()
            show(enqueued, stored)
            feed(enqueued + stored)
            if enqueuing.done():
                enqueuing.result()  # raises what the thread raised


def _verify(settings: Settings, seconds: float | None) -> int:
    """Count in a process of its own: only one may have the sink open, and the loader's is closed by now."""
    command = [sys.executable, "-m", PROGRAM, "verify", *settings.arguments()]
    if seconds is not None:
        command += ["--seconds", f"{seconds:.3f}"]
    return subprocess.run(command, check=False).returncode


def _watchdog() -> Callable[[int], None]:
    """Return a function that is fed a growing number and raises when it has not changed for too long."""
    last, since = -1, time.monotonic()

    def feed(rows: int) -> None:
        nonlocal last, since
        if rows != last:
            last, since = rows, time.monotonic()
        elif time.monotonic() - since > STALLED:
            raise DemoError(f"nothing has moved for {STALLED:.0f} s; ask `depth()` and `dead.list()` of the queue why")

    return feed


@contextmanager
def _bars() -> Generator[tuple[Show, Callable[[str], None]]]:
    """Draw two progress bars; yield what moves them and what prints a line above them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        enqueued = progress.add_task("enqueued", total=data.TOTAL)
        loaded = progress.add_task("loaded", total=data.TOTAL)

        def show(rows_enqueued: int, rows_loaded: int) -> None:
            progress.update(enqueued, completed=rows_enqueued)
            progress.update(loaded, completed=rows_loaded)

        yield show, lambda line: progress.console.print(line, markup=False, highlight=False)
