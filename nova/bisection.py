"""What to do with a batch whose handler raised: which part to run next, when to wait, whom to charge. Pure.

`isolate` is a generator: it yields `Run` (run these, send whether it went well) and `Pause`, and returns a `Verdict`.

The rule: **a failed attempt is charged to a task only if it failed alone while the sink was seen to work**, because some
other run succeeded meanwhile. Without such evidence the failure is taken for an outage of the sink: nobody is charged and
the waits grow. In detail, after the first failure:

1. wait the backoff, run the same batch once more;
2. run its halves; if both fail, run one single task as a probe (a part of one task needs none);
3. if anything succeeded, split what failed until single tasks are left, at most `4 * ceil(log2 n) + 2` runs; what fails
   alone is charged, what is left unresolved goes back uncharged;
4. if nothing did, it is an outage: wait, run the whole and one probe, up to `rounds` times; then everything goes back as
   delayed copies, uncharged. Only tasks accused before (charged once, or left unresolved in a round of step 3) are run
   alone first, and charged if they fail: what is left of a batch in a quiet queue must end too.

Charging unresolved tasks, or taking two failing halves for an outage at once, would bury good rows or never isolate two
poison rows in different halves; `docs/internals.md` has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Heard", "Pause", "Run", "Verdict", "isolate"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """Run the handler on these."""

    tasks: list[T]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next run: the retry policy's backoff, or for an outage to end."""

    outage: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a step.

    Attributes:
        ok: the run succeeded (True after a pause).
        others_ok: a run of another batch has succeeded since this batch first failed.
    """

    ok: bool
    others_ok: bool


@dataclass(slots=True)
class Verdict(Generic[T]):
    """What is left after the last run; everything else is done.

    Attributes:
        charged: failed alone: one attempt each.
        uncharged: again later, no attempt used.
        outage: it ended as an outage.
    """

    charged: list[T] = field(default_factory=list)
    uncharged: list[T] = field(default_factory=list)
    outage: bool = False


Steps = Generator[Run[T] | Pause, Heard, Verdict[T]]


def isolate(tasks: Sequence[T], was_accused: Callable[[T], bool], rounds: int) -> Steps[T]:
    """The steps after a batch's first failure.

    Args:
        was_accused: whether a task failed before this batch while the sink was seen to work.
        rounds: outage rounds before the tasks go back to the broker.
    """
    whole = list(tasks)
    yield Pause(outage=False)
    heard = yield Run(whole)
    if heard.ok:
        return Verdict()
    search = _Search(whole, others_ok=heard.others_ok)
    proven = yield from search.first_split()
    for turn in range(1, rounds + 1):
        if proven:
            break
        yield Pause(outage=True)
        heard = yield Run(search.left())
        if heard.ok:
            return Verdict()
        search.others_ok = heard.others_ok
        proven = yield from search.probe(turn)
    charged: list[T] = []
    if not proven:
        proven = yield from search.try_alone(was_accused, charged)
    if proven:
        verdict = yield from search.narrow()
        return Verdict(charged + verdict.charged, verdict.uncharged)
    return Verdict(charged, search.left(), outage=True)


class _Search(Generic[T]):
    """The parts that failed, the runs left to spend, and whether any other batch has succeeded meanwhile."""

    def __init__(self, tasks: list[T], *, others_ok: bool) -> None:
        self._parts = [tasks]
        self._budget = 4 * math.ceil(math.log2(len(tasks))) + 2 if len(tasks) > 1 else 0
        self.others_ok = others_ok

    def left(self) -> list[T]:
        return [task for part in self._parts for task in part]

    def first_split(self) -> Generator[Run[T] | Pause, Heard, bool]:
        """Run the halves, and a probe if both fail; returns whether the sink works."""
        if len(self._parts[0]) > 1 and (yield from self._split(0)):
            return True
        return (yield from self.probe(0))

    def probe(self, turn: int) -> Generator[Run[T] | Pause, Heard, bool]:
        """Run one single task, another one at each turn; returns whether the sink works."""
        part = self._parts[turn % len(self._parts)]
        if len(part) == 1:
            return self.others_ok
        index = turn * 7919 % len(part)
        heard = yield Run([part[index]])
        if heard.ok:
            del part[index]
        return heard.ok or heard.others_ok or self.others_ok

    def try_alone(self, was_accused: Callable[[T], bool], charged: list[T]) -> Generator[Run[T] | Pause, Heard, bool]:
        """Run accused tasks one by one; collects those that fail, stops at the first success."""
        for task in [task for task in self.left() if was_accused(task)]:
            if self._budget < 1 and charged:
                break
            if self._parts != [[task]]:  # else it has just failed alone, as the whole
                heard = yield Run([task])
                self._budget -= 1
                if heard.ok:
                    self._remove(task)
                    return True
            self._remove(task)
            charged.append(task)
        return False

    def narrow(self) -> Generator[Run[T] | Pause, Heard, Verdict[T]]:
        """Split what failed until single tasks are left or the budget is spent."""
        while self._budget >= 2:
            # The smallest first: a round that isolates something converges, however many poison tasks there are.
            splittable = [i for i, part in enumerate(self._parts) if len(part) > 1]
            if not splittable:
                break
            yield from self._split(min(splittable, key=lambda i: len(self._parts[i])))
        singles = [part[0] for part in self._parts if len(part) == 1]
        return Verdict(singles, [task for part in self._parts if len(part) > 1 for task in part])

    def _remove(self, task: T) -> None:
        self._parts = [kept for part in self._parts if (kept := [other for other in part if other is not task])]

    def _split(self, index: int) -> Generator[Run[T] | Pause, Heard, bool]:
        """Run both halves of a part; returns whether there is evidence that the sink works."""
        part = self._parts.pop(index)
        middle = len(part) // 2
        proven = self.others_ok
        for half in (part[:middle], part[middle:]):
            heard = yield Run(half)
            self._budget -= 1
            proven = proven or heard.ok or heard.others_ok
            if not heard.ok:
                self._parts.append(half)
        return proven
