"""The plot of a run: sidecars against one agent, and how the agent grows with its pods.

`python -m bench.plot RESULTS SVG`. RESULTS is what `python -m bench --json` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.sidecars import GO_SIDECAR_MIB

# Both read on white and on the dark page of a code host.
_OURS, _THEIRS, _GO, _INK = "#1f77d0", "#d9762b", "#8a8f98", "#7d848f"
_SIZE = (9.0, 3.2)


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the plot as SVG, on a transparent ground."""
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "netutil",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _INK,
            "axes.titlecolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    )
    figure = Figure(figsize=_SIZE, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    node, watch = results["node"], results["watch"]
    pods = [one["pods"] for one in node]
    _line(left, pods, [one["sidecars"]["memory_mib"] for one in node], _THEIRS, "Python sidecars")
    _line(left, pods, [one * GO_SIDECAR_MIB for one in pods], _GO, "Go sidecars, 13.6 MiB each")
    _line(left, pods, [one["agent"]["memory_mib"] for one in node], _OURS, "one agent")
    _name(left, "Memory of the node", pods, "MiB (PSS)", logarithmic=True)
    _line(middle, pods, [one["sidecars"]["threads"] for one in node], _THEIRS, "Python sidecars")
    _line(middle, pods, [one["agent"]["threads"] for one in node], _OURS, "one agent")
    _name(middle, "Threads on the node", pods, "threads", logarithmic=True)
    numbers = [one["pods"] for one in watch]
    _line(right, numbers, [one["memory_mib"] for one in watch], _OURS, "")
    _name(right, "The agent, a Watch for each pod", numbers, "MiB (PSS)", logarithmic=False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _line(axes: Axes, pods: list[int], values: list[float], colour: str, name: str) -> None:
    axes.plot(pods, values, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=name)


def _name(axes: Axes, title: str, pods: list[int], y: str, *, logarithmic: bool) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("pods")
    axes.set_ylabel(y)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.legend(frameon=False, labelcolor="linecolor", fontsize=8, loc="upper left")
        axes.margins(y=0.25)
    else:
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.set_xticks(pods, [str(number) for number in pods])
    axes.grid(visible=True, color=_INK, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
