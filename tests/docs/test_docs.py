"""Reasons, flags, metrics, targets and files of the documents exist."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from netutil.agent import errors
from netutil.agent.config import flag_values, parse
from netutil.agent.errors import AgentError, Reason
from netutil.agent.messages.status import code_of
from netutil.client.cli.exit_codes import EXPLANATION, Exit
from netutil.client.cli.main import main as netutil_main

from tests.support.documentation import rows, text_of
from tests.support.metric_names import scraped
from tests.support.repository import ROOT

DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def entries() -> dict[str, str]:
    """The text under each second-level heading of the troubleshooting page."""
    _, *parts = re.split(r"^## ", text_of("docs/troubleshooting.md"), flags=re.MULTILINE)
    headings = [part.partition("\n")[0] for part in parts]
    assert len(headings) == len(set(headings))
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def raised() -> set[tuple[str, str]]:
    """Every (class, reason) that the agent's source makes an error of."""
    found = set()
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(kind) | ast.Attribute(attr=kind),
                    args=[ast.Attribute(value=ast.Name("Reason"), attr=reason), *_],
                ):
                    found.add((kind, reason))
    return found


def test_every_reason_has_its_entry_and_every_entry_its_reason() -> None:
    assert set(entries()) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_an_entry_says_status_cause_and_what_to_do(reason: Reason) -> None:
    entry = entries()[reason]
    status = re.match(r"\nStatus: `([A-Z_]+)`\. \S", entry)
    assert status is not None
    assert status[1] in grpc.StatusCode.__members__
    assert "\n- Cause: " in entry and "\n- Do: " in entry


def test_an_entry_has_the_status_that_the_agent_answers_with() -> None:
    pairs = raised()
    assert ("PermissionDenied", "NOT_A_POD") in pairs
    for kind, reason in pairs:
        error_class = getattr(errors, kind, None)
        if error_class is None:
            continue  # a constructor that another module has around one of these
        assert issubclass(error_class, AgentError)
        code = code_of(error_class(Reason[reason], "sentence")).name
        assert f"Status: `{code}`." in entries()[reason], reason


def test_the_reasons_of_the_client_are_those_of_its_source() -> None:
    preface = text_of("docs/troubleshooting.md").partition("\n## ")[0]
    documented = {
        name
        for row in rows(preface)
        for name in row[0].split(", ")
        if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name)
    }
    written: set[str] = set()
    for module in ("rpc/diagnose", "cache/base", "rpc/requests", "rpc/retry", "rpc/wait"):
        for node in ast.walk(ast.parse(text_of(f"client/{module}.py"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written.update(re.findall(r"\A[A-Z]+(?:_[A-Z]+)+\Z", node.value))
    assert documented == written - set(grpc.StatusCode.__members__) - set(Reason)


class Recorder(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.asked.add(key)
        return default


def flag_rows() -> dict[str, list[str]]:
    section = text_of("docs/operate.md").partition("## Flags")[2].partition("\n## ")[0]
    return {row[0]: row[1:] for row in rows(section) if row[0].startswith("--")}


def test_the_flags_are_those_that_help_lists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {})
    listed = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert set(flag_rows()) == listed


def test_the_environment_variables_are_those_that_are_read() -> None:
    environment = Recorder()
    parse([], environment)
    documented = {row[0] for row in flag_rows().values()} - {"none"}
    given_by_kubernetes = {"NODE_IP", "NODE_NAME"} | {
        f"KUBERNETES_SERVICE_{what}" for what in ("HOST", "PORT")
    }
    assert documented == environment.asked - given_by_kubernetes
    for flag, (variable, *_) in flag_rows().items():
        assert variable in ("none", "NETUTIL_" + flag.removeprefix("--").upper().replace("-", "_"))


def test_the_defaults_are_those_of_the_settings() -> None:
    for name, value in flag_values(parse([], {})):
        match value:
            case bool():
                shown = "on" if value else "off"
            case float():
                shown = f"{value:g}"
            case _:
                shown = str(value) or "none"
        assert flag_rows()[f"--{name}"][1] == shown


def test_the_metrics_are_those_of_the_registry() -> None:
    section = text_of("docs/operate.md").partition("## Metrics")[2].partition("\n## ")[0]
    documented = {row[0]: row[1] for row in rows(section) if row[0].startswith("netutil_")}
    assert documented == scraped()


@pytest.mark.parametrize("name", ["README.md", "docs/operate.md", "docs/troubleshooting.md"])
def test_no_page_names_a_metric_that_is_not_there(name: str) -> None:
    assert set(re.findall(r"\bnetutil_[a-z_]+", text_of(name))) <= set(scraped())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_a_page_names_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    fenced = "\n".join(FENCE.findall(text))
    code = "\n".join([*fenced.splitlines(), *CODE_SPAN.findall(FENCE.sub("", text))])
    named = set(re.findall(r"(?:^|&& |sudo )make ([a-z][a-z0-9-]*)", code, re.MULTILINE))
    assert named <= targets
    if path == ROOT / "README.md":
        assert {"demo", "test"} <= named


def operators_section() -> str:
    return text_of("docs/operate.md").partition("## The operator's tools")[2].partition("\n## ")[0]


def test_the_operators_commands_are_those_that_help_lists(
    capsys: pytest.CaptureFixture[str],
) -> None:
    documented = {
        row[0].split()[2] for row in rows(operators_section()) if row[0].startswith("netutil node ")
    }
    with pytest.raises(SystemExit):
        netutil_main(["node", "--help"])
    listed = set(re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE))
    assert documented == listed - {"kubectl"}


@pytest.mark.parametrize("command", ["pods", "pod", "map", "top", "trace", "explain", "doctor"])
def test_the_flags_of_an_operators_command_are_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = (
        row
        for row in rows(operators_section())
        if row[0].split()[:3] == ["netutil", "node", command]
    )
    with pytest.raises(SystemExit):
        netutil_main(["node", command, "--help"])
    shown = capsys.readouterr().out
    for flag in re.findall(r"--[a-z-]+", row[1]):
        assert f"{flag} " in shown
    common = {"--help", "--output", "--timeout", "--admin-socket", "--version"}
    own = set(re.findall(r"(?<![a-z])--[a-z-]+", shown)) - common
    assert own - {"--socket"} == set(re.findall(r"--[a-z-]+", row[1]))


def test_the_steps_of_an_explanation_are_those_of_its_source() -> None:
    named = {row[0] for row in rows(operators_section()) if len(row) == 2 and row[0].islower()}
    written = set(re.findall(r"step\(\"([a-z ]+)\"\)", text_of("agent/admin/explain.py")))
    assert named & written == written
    assert len(written) == 7


def test_the_exit_codes_are_those_of_the_command() -> None:
    section = text_of("docs/use.md").partition("### Exit codes")[2].partition("\n## ")[0]
    documented = {int(row[0]): row[1] for row in rows(section) if row[0].isdigit()}
    assert set(documented) == set(Exit)
    assert all(f"{code}  " in EXPLANATION for code in documented)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_no_file_of_the_repository_refers_to_files_outside() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    outside = "/".join(("..", "shared")).encode()
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    assert "setup.cfg" in names
    assert [name for name in names if outside in (ROOT / name).read_bytes()] == []
