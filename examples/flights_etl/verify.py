"""The proof: what is in the sink, carrier by carrier, against the published counts of the data set."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from examples.flights_etl import data
from examples.flights_etl.settings import Settings
from examples.flights_etl.sink import Sink

PUBLISHED = {
    "UA": 58_665,
    "B6": 54_635,
    "EV": 54_173,
    "DL": 48_110,
    "AA": 32_729,
    "MQ": 26_397,
    "US": 20_536,
    "9E": 18_460,
    "WN": 12_275,
    "VX": 5_162,
    "FL": 3_260,
    "AS": 714,
    "F9": 685,
    "YV": 601,
    "HA": 342,
    "OO": 32,
}
MILES, CANCELLED = 350_217_607, 8_255


def run(settings: Settings, seconds: float | None) -> bool:
    """Print the counts found beside those expected, and return whether all are equal.

    Args:
        settings: names the sink, which no other process may have open.
        seconds: how long the run took from its start to the stop of the loader, if it was measured.
    """
    with Sink(settings.sink) as sink:
        found, sums = sink.count_by_carrier(), sink.sums()
    console = Console()
    console.print(_table(found))
    exact = found == PUBLISHED and sums == (MILES, CANCELLED)
    console.print(f"{sums[0]:,} miles, {sums[1]:,} flights never departed; expected {MILES:,} and {CANCELLED:,}")
    if seconds is not None:
        console.print(f"{data.TOTAL:,} tasks in {seconds:.1f} s: {data.TOTAL / seconds:,.0f} tasks/s", style="bold")
    console.print("[green]exact[/]" if exact else "[red]the sink does not hold what was enqueued[/]", style="bold")
    return exact


def _table(found: dict[str, int]) -> Table:
    """Lay out one line a carrier, any that should not be there included, and the total."""
    table = Table(title="Flights from New York City, 2013", show_footer=True)
    expected_total, found_total = sum(PUBLISHED.values()), sum(found.values())
    table.add_column("carrier", "total")
    table.add_column("expected", f"{expected_total:,}", justify="right")
    table.add_column("found", f"{found_total:,}", justify="right")
    table.add_column("", _mark(expected_total, found_total))
    for carrier in [*PUBLISHED, *sorted(found.keys() - PUBLISHED.keys())]:
        expected, there = PUBLISHED.get(carrier, 0), found.get(carrier, 0)
        table.add_row(carrier, f"{expected:,}", f"{there:,}", _mark(expected, there))
    return table


def _mark(expected: int, found: int) -> str:
    return "[green]ok[/]" if expected == found else f"[red]{found - expected:+,}[/]"
