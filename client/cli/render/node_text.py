"""The steps of an explanation and the checks of a diagnosis, as text for a person. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from netutil.client.cli.render.tables import Style
from netutil.client.models.node import Check, Diagnosis, ExplainStep, Explanation, TracedCall
from netutil.client.text import NOTHING, escaped

_WIDTH = 100
"""Of text that goes to no terminal."""
_MARKS = {
    "degraded": "PART",
    "stopped": "STOP",
    "ok": "ok",
    "warning": "warning",
    "failed": "FAILED",
}


def explanation(answer: Explanation, style: Style) -> str:
    """One screen: the verdict, then each step."""
    width = style.width or _WIDTH
    lines = [_bold(line, style) for line in textwrap.wrap(_verdict(answer), width)]
    for step in answer.steps:
        lines += _block(_MARKS.get(step.outcome, step.outcome), 4, step.name, _said(step), style)
    return "".join(f"{line}\n" for line in lines)


def _verdict(answer: Explanation) -> str:
    where = f"{answer.pod}{f', container {answer.container}' if answer.container else ''}"
    if answer.answered:
        return f"PID {answer.pid} is answered{f' as {escaped(where)}' if answer.pod else ''}"
    last = answer.steps[-1] if answer.steps else None
    if last is None:
        return f"PID {answer.pid} is not answered"
    return f'PID {answer.pid} is refused at "{escaped(last.name)}": {last.code} {last.reason}'


def _said(step: ExplainStep) -> list[str]:
    said = list(step.found)
    if step.outcome != "ok":
        if step.read:
            said.append(f"read: {step.read}")
        if step.advice:
            said.append(f"fix: {step.advice}")
    return said


def diagnosis(answer: Diagnosis, style: Style) -> str:
    """A line for each check, with the remedy below each check that needs one, and the sum."""
    lines = []
    name_width = max((len(check.name) for check in answer.checks), default=0)
    for check in answer.checks:
        said = [check.found, *([f"fix: {check.remedy}"] if check.remedy else [])]
        mark = _MARKS.get(check.outcome, check.outcome)
        lines += _block(mark, 7, f"{check.name:<{name_width}}", said, style)
    lines.append(_bold(_sum(answer.checks), style))
    return "".join(f"{line}\n" for line in lines)


def _sum(checks: Sequence[Check]) -> str:
    failed = sum(check.outcome == "failed" for check in checks)
    warnings = sum(check.outcome == "warning" for check in checks)
    plural = "" if warnings == 1 else "s"
    return f"{len(checks)} checks: {failed} failed, {warnings} warning{plural}"


def _block(mark: str, mark_width: int, name: str, said: Sequence[str], style: Style) -> list[str]:
    """A mark and a name, and beside them the text, wrapped."""
    head = f"{mark:<{mark_width}}  {escaped(name):<15}  "
    rest = " " * len(head)
    width = max(len(head) + 20, style.width or _WIDTH)
    lines: list[str] = []
    for one in said or [""]:
        wrapped = textwrap.wrap(
            escaped(one),
            width,
            initial_indent=rest if lines else head,
            subsequent_indent=rest,
            break_on_hyphens=False,
        )
        lines += wrapped or [head.rstrip()]
    return lines


def traced(call: TracedCall) -> str:
    """One line of a trace, below `TRACE_HEADER`."""
    status = {"began": "streams", "ended": f"ended {call.code}"}.get(call.event, call.code)
    cells = (
        f"{call.at:%H:%M:%S.%f}"[:-3],
        f"{call.seconds * 1000:.1f}",
        f"{call.namespace}/{call.pod}" if call.pod else NOTHING,
        call.container or call.container_id[:12] or NOTHING,
        str(call.pid) if call.pid else NOTHING,
        str(call.uid) if call.pid else NOTHING,
        call.method,
        f"{status} {call.reason}" if call.reason else status,
    )
    return _trace_line([escaped(cell) for cell in cells])


_TRACE_COLUMNS = (
    *(("TIME", 12), ("MS", 7), ("POD", 32), ("CONTAINER", 16)),
    *(("PID", 7), ("UID", 6), ("METHOD", 16), ("STATUS", 0)),
)
"""Title and width of each column. A longer cell moves the cells after it."""


def _trace_line(cells: Sequence[str]) -> str:
    """The cells in columns, with the milliseconds aligned to the right."""
    padded = (
        cell.rjust(width) if title == "MS" else cell.ljust(width)
        for cell, (title, width) in zip(cells, _TRACE_COLUMNS, strict=True)
    )
    return "  ".join(padded).rstrip()


TRACE_HEADER = _trace_line([title for title, _ in _TRACE_COLUMNS]) + "\n"


def _bold(text: str, style: Style) -> str:
    return f"\x1b[1m{text}\x1b[0m" if style.bold else text
