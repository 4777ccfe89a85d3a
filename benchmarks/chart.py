"""A run's rates as an SVG: a dot for the median of each measured thing, a line from its slowest round to its fastest.

Drawn by matplotlib (November 2026: typed, several releases a year, its SVG keeps text as text, so that a reader can search a
chart and a test can read it). Pure but for the library's own caches.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["draw"]

NOVA, OTHER = "#1f5fbf", "#7a7a7a"
ROW = 0.3
"""Inches of height for each measured thing."""


def draw(title: str, rates: Mapping[str, Sequence[float]]) -> str:
    """The chart.

    Args:
        rates: tasks per second, a figure a round, by what was measured.
    """
    ordered = sorted(rates, key=lambda name: statistics.median(rates[name]))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nova", "font.size": 9}):
        figure = Figure(figsize=(9, 1.2 + ROW * len(ordered)), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(ordered):
            colour = NOVA if name.startswith("Nova") else OTHER
            median = statistics.median(rates[name])
            axes.plot([min(rates[name]), max(rates[name])], [place, place], color=colour, linewidth=2, alpha=0.5)
            axes.plot([median], [place], "o", color=colour)
            axes.annotate(
                f"{median:,.0f}", (median, place), (0, 5), textcoords="offset points", ha="center", fontsize=7
            )
        axes.set_xscale("log")
        axes.set_yticks(range(len(ordered)), ordered)
        axes.set_ylim(-0.7, len(ordered) - 0.2)
        axes.set_xlabel("tasks a second, logarithmic; the median of the rounds, and from the slowest to the fastest")
        axes.set_title(title, loc="left")
        axes.grid(axis="x", alpha=0.3)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
