"""The table of the results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.rows import Row

OURS = "longconn"


@dataclass
class Result:
    """The figures of one server in one row, one of each run, or why there are none."""

    row: Row
    server: str
    figures: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None

    def median(self, name: str) -> float:
        """Return the median of a figure over all runs."""
        return statistics.median(each[name] for each in self.figures)

    def as_dict(self) -> dict[str, object]:
        """Return all that is known, for JSON."""
        row = {"group": self.row.group, "row": self.row.name, "unit": self.row.unit, "figure": self.row.figure}
        return {**row, "server": self.server, "figures": self.figures, "error": self.error}

    @property
    def value(self) -> float:
        """What the row is about."""
        return self.median(self.row.figure)


def ratio(ours: Result, theirs: Result) -> float:
    """Tell how many times as good ours is: above 1 it is better, whether more or less is."""
    if ours.row.more_is_better:
        return ours.value / theirs.value if theirs.value else float("inf")
    return theirs.value / ours.value if ours.value else float("inf")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(result: Result, ours: Result | None) -> str:
    start = f"| {result.row.group}: {result.row.name} | {result.server} |"
    if result.error:
        return f"{start} failed: {result.error.splitlines()[0][:100]} | | | | |"
    values = [each[result.row.figure] for each in result.figures]
    spread = f"{_number(min(values))} to {_number(max(values))}"
    times = f"{ratio(ours, result):.2f}" if ours and ours.figures and result is not ours else ""
    load = f"{result.median('load_cpu'):.0%}" if "load_cpu" in result.figures[0] else ""
    return f"{start} {_number(result.value)} | {result.row.unit} | {spread} | {times} | {load} |"


def table(results: Iterable[Result]) -> str:
    """Return a table in Markdown, ours first in each row."""
    lines = [
        "| measured | server | median | unit | lowest to highest | longconn is so many times as good | load's CPU |",
        "|---|---|---:|---|---|---:|---:|",
    ]
    by_row: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_row.setdefault((result.row.group, result.row.name), []).append(result)
    for of_row in by_row.values():
        ours = next((each for each in of_row if each.server == OURS), None)
        lines += [_line(each, ours) for each in of_row]
    return "\n".join(lines)
