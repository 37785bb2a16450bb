"""`edgeq show history --plot`: rows of a history as small charts, one below the other, by plotille (`edgeq[plot]`).

One chart for each number, rather than lines on top of each other: those could be told apart only by colour.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeq.errors import EdgeqError

CHARTS: Final = {
    "depth": ("waiting", "number"),
    "in_flight": ("in flight", "number"),
    "arrivals_per_s": ("arrivals", "per s"),
    "refused_per_s": ("refused", "per s"),
    "oldest_ms": ("oldest that waits", "ms"),
    "service_ms": ("service", "ms"),
    "connections": ("connections", "number"),
    "lag_ms": ("lag of the loop", "ms"),
}
"""Key of a record, what it is called, and its unit."""
WIDTH: Final = 80
_HEIGHT: Final = 4
_MARGIN: Final = 22
"""What plotille needs beside a chart."""


def plot(records: Sequence[Mapping[str, Any]], width: int = WIDTH) -> str:
    """The charts of one resource or worker, as text. Raises EdgeqError if plotille is not installed."""
    try:
        import plotille
    except ImportError:
        raise EdgeqError("--plot needs plotille: pip install 'edgeq[plot]'") from None
    if not records:
        return "(none)\n"
    times = [datetime.datetime.fromisoformat(one["at"]) for one in records]
    ages = [(at - times[-1]).total_seconds() for at in times]
    digits = 0 if ages[0] <= -10 else 1
    charts = [f"{records[-1]['resource']}, the {-ages[0]:.0f} s to {times[-1]:%Y-%m-%d %H:%M:%S} UTC\n"]
    for key, (title, unit) in CHARTS.items():
        known = [(age, one[key]) for age, one in zip(ages, records, strict=True) if one[key] is not None]
        if not known:
            continue
        most = max(value for _, value in known)
        limit = records[-1]["limit"] if key == "in_flight" else None
        figure = plotille.Figure()
        figure.with_colors = False
        figure.width, figure.height = max(width - _MARGIN, 10), _HEIGHT
        figure.set_x_limits(min(ages[0], -1.0), 0.0)
        figure.set_y_limits(0, max(most, 1))
        figure.x_label = "s"
        figure.y_label = unit
        figure.x_ticks_fkt = lambda low, _high: f"{low:.{digits}f}" if low else "0"
        figure.y_ticks_fkt = lambda low, _high: f"{low:.4g}"
        figure.plot([age for age, _ in known], [value for _, value in known])
        head = f"{title}: {known[-1][1]:.4g} now, {most:.4g} at most" + (f", limit {limit}" if limit else "")
        charts.append(f"{head}\n{figure.show()}\n")
    return "\n".join(charts)
