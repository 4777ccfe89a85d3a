"""`nova worker`: run a module's tasks, or one of its functions, in this process or in several that are looked after."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nova.aggregators import TimeCountAggregator
from nova.cli.link import READY, STARTING, Supervised
from nova.cli.loading import load, split
from nova.cli.logs import LogLevel, set_up_logging
from nova.cli.options import split_names
from nova.cli.outcome import DONE, FAILED
from nova.cli.reload import changes_of
from nova.cli.supervisor import Supervisor
from nova.cli.target import ConfigFile, TaskQueue, Url, is_told_by_environment, lonely_driver, serve, variables_of
from nova.clock import seconds
from nova.errors import ConfigError
from nova.registry import DecoratedTask
from nova.signals import CountedSignals, StopRequests

__all__ = ["work"]

BATCH_WINDOW = 1.0
"""Seconds a batch waits for more tasks if `--batch-window` does not say."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker process is to do, as the command line says it.

    Attributes:
        is_told: whether the command line, not the environment, says the queue.
    """

    target: str
    is_told: bool
    concurrency: int | None
    queues: list[str] | None
    batch_size: int | None
    batch_window: float | None
    grace: float
    log_level: LogLevel

    def arguments(self) -> list[str]:
        """The command line of a process of its own. Which queue, its environment says: the URL may hold a password."""
        options = {
            "--concurrency": self.concurrency,
            "--queues": None if self.queues is None else ",".join(self.queues),
            "--batch-size": self.batch_size,
            "--batch-window": self.batch_window,
            "--grace": self.grace,
            "--log-level": self.log_level.value,
        }
        given = [f"{name}={value}" for name, value in options.items() if value is not None]
        return ["worker", self.target, *given, *(["--told"] if self.is_told else [])]


def work(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:OBJECT", help="A TaskQueue with decorated tasks, or a handler function.")
    ],
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", metavar="N", min=1, max=10_000, help="Handlers of one class at once; 16, batches 2."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, max=1000, help="Processes, each with this concurrency.")
    ] = 1,
    queues: Annotated[
        list[str] | None,
        typer.Option("--queues", "--queue", metavar="NAMES", help="What to read; several by comma or by repeating it."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", min=1, help="The function takes batches of at most so many tasks."),
    ] = None,
    batch_window: Annotated[
        float | None,
        typer.Option("--batch-window", metavar="SECONDS", help=f"How long a batch waits for more; {BATCH_WINDOW:g}."),
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="How long a stop waits for what runs.")
    ] = 30.0,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start again when a .py or .toml file here changes; for development.")
    ] = False,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="How much to say on stderr.")] = LogLevel.INFO,
    config: ConfigFile = None,
    url: Url = None,
    supervised: Annotated[int | None, typer.Option("--supervised", hidden=True)] = None,
    told: Annotated[bool, typer.Option("--told", hidden=True)] = False,
) -> int:
    """Run a worker until SIGINT or SIGTERM: it then finishes what runs; a second signal ends it at once.

    MODULE:OBJECT is a TaskQueue, whose decorated tasks are run, or a function of one task (with --batch-size of one batch),
    for which --config, --url, NOVA_CONFIG or NOVA_URL say the queue.
    """
    named = variables_of(config, url)
    split(target)
    seconds("--grace", grace)
    if batch_window is not None and batch_size is None:
        raise ConfigError("--batch-window: is for batches; give --batch-size too")
    for variable, text in named.items():  # for the processes, and for the module's own queues as well
        _put(variable, text)
    plan = Plan(
        target, bool(named) or told, concurrency, split_names(queues), batch_size, batch_window, grace, log_level
    )  # fmt: skip
    if supervised is not None:
        requests = Supervised(supervised)
        return _run(plan, requests, requests.tell)
    if processes == 1 and not reload:
        return _run(plan, CountedSignals(), lambda word: None)
    set_up_logging(log_level)
    if not reload:
        return Supervisor(plan.arguments(), processes, grace).run()
    with changes_of(Path.cwd()) as changed:
        return Supervisor(plan.arguments(), processes, grace, changed).run()


def _run(plan: Plan, requests: CountedSignals | Supervised, tell: Callable[[bytes], None]) -> int:
    """Work in this process; returns its exit code. Until the module is loaded a signal just ends it."""
    start, queue = _prepare(plan)

    def begin() -> None:
        tell(STARTING)
        _start(start, requests)
        tell(READY)
        _warn_if_alone(queue)

    with requests:
        code, finished = serve(queue, requests, begin, plan.grace)
    if code:
        return code
    return DONE if finished else FAILED


def _start(start: Callable[[], None], requests: StopRequests) -> None:
    """Start in a thread of its own: a client that waits for a broker may hear no signal. A second one ends the process."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            start()
        except Exception as exc:  # noqa: BLE001 - a thread's top: raised again below
            failed.append(exc)

    thread = threading.Thread(target=run, name="nova-start", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if requests.seen >= 2:
            _log.warning("asked a second time before it has started: ending at once")
            logging.shutdown()
            os._exit(FAILED)  # not by an exception: what opens the broker holds the queue's lock
    if failed:
        raise failed[0]


def _warn_if_alone(queue: TaskQueue) -> None:
    name = lonely_driver(queue)
    if name is not None:
        _log.warning(
            "%r keeps tasks in one process: this worker runs only what this process enqueues itself; name a broker, "
            "such as sqlite:///nova.db",
            name,
        )


def _prepare(plan: Plan) -> tuple[Callable[[], None], TaskQueue]:
    """Load the module; what starts its worker, and its queue. Nothing is opened."""
    try:
        found = load(plan.target)
    except ConfigError:
        set_up_logging(plan.log_level)
        _log.debug("loading %s failed", plan.target, exc_info=True)
        raise
    set_up_logging(plan.log_level)
    options: dict[str, Any] = {} if plan.concurrency is None else {"concurrency": plan.concurrency}
    if isinstance(found, TaskQueue):
        _check_queue(plan, found)
        return functools.partial(found.start, None, queues=plan.queues, **options), found
    if isinstance(found, DecoratedTask):
        raise ConfigError(
            f"worker: {plan.target!r} is one task of a TaskQueue; name the queue, whose tasks are all run"
        )
    if not callable(found) or isinstance(found, type):
        raise ConfigError(f"worker: expected a TaskQueue or a function of one task, got {found!r} as {plan.target!r}")
    queue = TaskQueue.from_env()
    if plan.batch_size is None:
        return functools.partial(queue.start, found, queues=plan.queues, **options), queue
    window = BATCH_WINDOW if plan.batch_window is None else plan.batch_window
    aggregator = TimeCountAggregator(plan.batch_size, window)
    return functools.partial(queue.start_batch, found, aggregator, queues=plan.queues, **options), queue


def _check_queue(plan: Plan, queue: TaskQueue) -> None:
    if plan.batch_size is not None:
        raise ConfigError(f"--batch-size: needs a function of one batch; {plan.target!r} is a TaskQueue")
    if plan.is_told and not is_told_by_environment(queue):
        raise ConfigError(
            f"worker: {plan.target!r} names its broker itself, so --config and --url would not reach it; build it with "
            "TaskQueue.from_env(), or leave them out"
        )


def _put(variable: str, text: str) -> None:
    if text:
        os.environ[variable] = text
    else:  # gone: a module may ask whether there is one
        os.environ.pop(variable, None)
