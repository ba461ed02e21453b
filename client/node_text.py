"""The steps of an explanation and the checks of a diagnosis, as text for a person. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from netutil.client.node_results import Check, Diagnosis, ExplainStep, Explanation, TracedCall
from netutil.client.tables import Style, escaped

_WIDTH = 100
"""Of text that goes to no terminal."""
_MARKS = {
    "passed": "ok",
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
    if step.outcome != "passed":
        if step.read:
            said.append(f"read: {step.read}")
        if step.advice:
            said.append(f"fix: {step.advice}")
    return said


def diagnosis(answer: Diagnosis, style: Style) -> str:
    """A line for each check, with the mend below those that need one, and the sum."""
    lines = []
    for check in answer.checks:
        said = [check.found, *([f"fix: {check.remedy}"] if check.remedy else [])]
        lines += _block(_MARKS.get(check.outcome, check.outcome), 7, check.name, said, style)
    lines.append(_bold(_sum(answer.checks), style))
    return "".join(f"{line}\n" for line in lines)


def _sum(checks: Sequence[Check]) -> str:
    failed = sum(check.outcome == "failed" for check in checks)
    warnings = sum(check.outcome == "warning" for check in checks)
    plural = "" if warnings == 1 else "s"
    return f"{len(checks)} checks: {failed} failed, {warnings} warning{plural}"


def _block(mark: str, mark_width: int, name: str, said: Sequence[str], style: Style) -> list[str]:
    """A mark and a name, and beside them what is said, wrapped."""
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
    """One line of a trace: when, who, what, and what was told."""
    who = f"{call.namespace}/{call.pod}" if call.pod else "-"
    container = call.container or call.container_id[:12] or "-"
    process = f"pid {call.pid} uid {call.uid}" if call.pid else "pid ?"
    told = {"began": "streams", "ended": f"ended {call.code}"}.get(call.event, call.code)
    reason = f" {call.reason}" if call.reason else ""
    line = (
        f"{call.at:%H:%M:%S.%f}"[:-3]
        + f" {who} {container} {process} {call.method} {told}{reason} {call.seconds * 1000:.1f} ms"
    )
    return escaped(line)


def _bold(text: str, style: Style) -> str:
    return f"\x1b[1m{text}\x1b[0m" if style.bold else text
