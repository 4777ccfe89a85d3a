"""From results to what a person reads: aligned tables, medians, and which targets were reached. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from benchmarks.samples import Results, Sample

__all__ = [
    "Ratio",
    "faults",
    "median_ms",
    "on_server",
    "percentile",
    "rates",
    "ratio_data",
    "ratios_by_round",
    "table",
    "verdict",
]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison: Nova's rate over the best of the others in the same round.

    Attributes:
        bounds: what is asked of it, and what is asked of it next; none = printed only.
        value: what is compared, where it is not the rate.
        at_most: whether less is better.
    """

    what: str
    ours: str
    against: str
    others: tuple[str, ...]
    bounds: tuple[float, ...] = ()
    value: Callable[[Sample], float] = attrgetter("rate")
    at_most: bool = False

    def rounds(self, results: Results) -> list[float]:
        """One ratio a round."""
        ours = results.of_rounds((self.ours,), self.value)
        others = results.of_rounds(self.others, self.value)
        return [a / b for a, b in zip(ours, others, strict=True)]


def verdict(value: float, bound: float, *, at_most: bool = False) -> str:
    """Whether a target is reached in this run."""
    reached = value <= bound if at_most else value >= bound
    return f"{'≤' if at_most else '≥'} {bound:g}: {'reached' if reached else 'FALLS SHORT'}"


def on_server(server: str, results: Results, ratios: Sequence[Ratio], lone: Sequence[str], *but: str) -> str:
    """What the suites of brokers with a server say alike.

    Args:
        server: which, as the first line.
        lone: the lone sends.
        but: what is left out of the rates.
    """
    measured = sorted(results.samples.keys() - set(but))
    parts = [server, rates(results, measured), ratios_by_round(results, ratios), lone_sends(results, lone)]
    return "\n\n".join(parts)


def rates(results: Results, names: Sequence[str]) -> str:
    """Tasks per second of each round, their median, CPU per task, and what went wrong."""
    rows = []
    for name in names:
        samples = results.samples[name]
        cpu = statistics.median(sample.details["cpu_seconds"] / sample.tasks for sample in samples)
        rows.append(
            [
                name,
                f"{samples[0].tasks:,}",
                " ".join(f"{sample.rate:,.0f}" for sample in samples),
                f"{statistics.median(sample.rate for sample in samples):,.0f}",
                f"{1e6 * cpu:.1f}",
                *faults(samples),
            ]
        )
    head = ["measured", "tasks", "tasks/s by round", "median", "CPU µs/task", "lost", "twice"]
    return table("Rates", head, rows)


def ratios_by_round(results: Results, ratios: Sequence[Ratio]) -> str:
    """Each comparison round by round, its median, and its bounds."""
    rows = []
    for ratio in ratios:
        rounds = ratio.rounds(results)
        median = statistics.median(rounds)
        verdicts = [verdict(median, bound, at_most=ratio.at_most) for bound in ratio.bounds]
        judged = "; then ".join(verdicts) or "no bound"
        rows.append([ratio.what, ratio.against, " ".join(f"{r:.2f}" for r in rounds), f"{median:.2f}", judged])
    return table("Ratios", ["Nova", "against", "by round", "median", "target"], rows)


def lone_sends(results: Results, names: Sequence[str]) -> str:
    """How long a send that is alone takes, in ms."""
    rows = []
    for name in names:
        samples = results.samples[name]
        rounds = [[percentile(sample.details["ms"], share) for sample in samples] for share in (0.5, 0.99)]
        figures = [
            text for by in rounds for text in (" ".join(f"{ms:.2f}" for ms in by), f"{statistics.median(by):.2f}")
        ]
        rows.append([name, f"{samples[0].tasks:,}", *figures, *faults(samples)])
    head = ["confirmed one by one", "sends", "p50 ms by round", "median", "p99 ms by round", "median", "lost", "twice"]
    return table("A lone send", head, rows)


def median_ms(sample: Sample) -> float:
    """The middle one of a run's lone sends."""
    return percentile(sample.details["ms"], 0.5)


def faults(samples: Sequence[Sample]) -> list[str]:
    """How many tasks were lost and handled twice over all rounds."""
    return [str(sum(sample.lost for sample in samples)), str(sum(sample.duplicates for sample in samples))]


def ratio_data(results: Results, ratios: Sequence[Ratio]) -> dict[str, Any]:
    """The ratios as data, for the JSON."""
    return {
        f"{ratio.what} / {ratio.against}": {
            "rounds": (rounds := ratio.rounds(results)),
            "median": statistics.median(rounds),
            "at most" if ratio.at_most else "bounds": ratio.bounds,
        }
        for ratio in ratios
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A titled, aligned text table; the first column to the left, numbers to the right, words at the end to the left."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [title, "=" * len(title)]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [cell.rjust(widths[i]) if _is_number(rows, i) else cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column].replace(",", "").replace(".", "").isdigit() for row in rows)
