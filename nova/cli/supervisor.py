"""Keeps so many worker processes alive: starts them, starts again what dies, stops all together. Main thread only.

The first process is started alone: what is wrong with the module or the configuration is then said once, and ends the
command. States of a place: waiting for its time to start, starting, ready, asked to stop, ended.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nova.cli.child import Child
from nova.cli.outcome import DONE, FAILED
from nova.cli.restarts import GiveUp, Life, how_it_ended, verdict
from nova.signals import CountedSignals

__all__ = ["Supervisor"]

LOOK_EVERY = 0.05
OVER_GRACE = 8.0
"""Seconds past the grace in which a process may close its connections, before it is killed: a broker that does not answer
takes up to six of them (RabbitMQ). What watches the command itself waits ten, as docs/deploying.md says."""
AT_ONCE = 5.0
"""Seconds a process has that was asked to end at once."""

_log = logging.getLogger(__name__)


@dataclass
class Place:
    """Where one worker process belongs."""

    number: int
    child: Child | None = None
    start_at: float = 0.0
    deaths: int = 0


class Supervisor:
    """Runs `processes` workers until a signal.

    Args:
        arguments: of `nova`, for each process.
        processes: how many.
        grace: seconds that each is given to finish what it does.
        changed: where the command reloads, says whether a file has changed since it was asked last.
    """

    def __init__(
        self, arguments: Sequence[str], processes: int, grace: float, changed: Callable[[], bool] | None = None
    ) -> None:
        self._arguments = arguments
        self._places = [Place(number) for number in range(1, processes + 1)]
        self._grace = grace
        self._changed = changed
        self._is_proven = False
        self._giving_up: int | None = None

    def run(self) -> int:
        """Keep them alive, stop them; returns the exit code of the command."""
        with CountedSignals() as signals:
            while not signals.seen and self._giving_up is None:
                if self._changed is not None and self._changed():
                    self._reload()
                for place in self._places:
                    self._look_after(place)
                time.sleep(LOOK_EVERY)
            return self._stop(signals)

    def _look_after(self, place: Place) -> None:
        if place.child is None:
            if time.monotonic() >= place.start_at and (self._is_proven or place is self._places[0]):
                place.child = Child(self._arguments)
                _log.info("worker process %d started, pid %d", place.number, place.child.pid)
            return
        code = place.child.look()
        self._is_proven = self._is_proven or place.child.is_ready
        if code is not None:
            self._bury(place, place.child, code)

    def _bury(self, place: Place, child: Child, code: int) -> None:
        """Decide what follows the end of a place's process."""
        now = time.monotonic()
        place.child, place.start_at = None, now
        if child.is_asked:
            return
        life = Life(code, child.is_starting, child.is_ready, now - child.started, place.deaths)
        next_step = verdict(life, proven=self._is_proven, random=random.random())
        name, ended = f"worker process {place.number}, pid {child.pid},", how_it_ended(code)
        if not isinstance(next_step, GiveUp):
            place.deaths, place.start_at = next_step.deaths, now + next_step.delay
            _log.warning("%s %s; starting it again in %.1f s", name, ended, next_step.delay)
        elif self._changed is not None:
            place.start_at = math.inf
            _log.error("%s %s before it was ready; waiting for a change", name, ended)
        else:
            level = logging.ERROR if self._is_proven else logging.INFO  # the first has said it all itself
            _log.log(level, "%s %s before it was ready; giving up", name, ended)
            self._giving_up = next_step.code

    def _reload(self) -> None:
        """Drain what runs; each place starts anew when its process has ended, or now."""
        _log.info("files have changed, starting the workers again")
        for place in self._places:
            place.start_at = 0.0
            place.deaths = 0
            if place.child is not None:
                place.child.drain(self._grace + OVER_GRACE)

    def _stop(self, signals: CountedSignals) -> int:
        """Ask all to drain; a second signal asks them to end at once."""
        running = [place.child for place in self._places if place.child is not None]
        _log.info(
            "stopping %d worker processes, up to %g s; a second signal ends them at once", len(running), self._grace
        )
        for child in running:
            child.drain(self._grace + OVER_GRACE)
        hurried = False
        code = DONE
        while running:
            if signals.seen >= 2 and not hurried:
                hurried = True
                for child in running:
                    child.end(AT_ONCE)
            for child in list(running):
                ended = child.look()
                if ended is not None:
                    running.remove(child)
                    code = self._worst(code, child, ended)
            time.sleep(LOOK_EVERY)
        return code if self._giving_up is None else self._giving_up

    def _worst(self, code: int, child: Child, ended: int) -> int:
        """One that had no tasks yet lost nothing by being ended."""
        if ended == DONE or not child.is_ready:
            return code
        _log.warning("worker process with pid %d %s", child.pid, how_it_ended(ended))
        return FAILED
