"""Promises of SECURITY.md: nothing unpickled, no connection, text from data is text, file names are not made of it."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.notebook import verdict_html
from ctcguard.sinks.console import ConsoleSink
from ctcguard.verdict import Verdict
from ctcguard_integrations.torch_loop import watch
from ctcguard_integrations.wandb_alerts import alert_text

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "ctcguard").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")])
UNSAFE_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "ctypes", "code",
    "urllib", "http", "requests", "httpx", "aiohttp", "socket", "ssl", "ftplib", "smtplib", "telnetlib", "xmlrpc",
}  # fmt: skip
UNSAFE_CALLS = {"eval", "exec", "torch.load", "np.load", "numpy.load", "os.system", "pickle.loads", "__import__"}
ALLOWED = {
    ("ctcguard/program.py", "exec"),  # the script that the user names
    ("ctcguard/demo/speech.py", "ctypes"),  # the speech synthesiser of the demo
}


def unsafe(source: str) -> Iterator[str]:
    """Modules that a source text imports, and functions that it calls, which it should not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := alias.name.partition(".")[0]) in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom) and (name := str(node.module).partition(".")[0]) in UNSAFE_MODULES:
            yield name
        elif isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in UNSAFE_CALLS:
            yield called
        elif (
            isinstance(node, ast.keyword)
            and node.arg in ("shell", "allow_pickle")
            and ast.unparse(node.value) == "True"
        ):
            yield f"{node.arg}=True"


def test_no_source_unpickles_evaluates_or_connects() -> None:
    found = {
        (file.relative_to(ROOT).as_posix(), what)
        for file in SOURCES
        for what in unsafe(file.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED


def test_twin_what_is_unsafe_is_seen() -> None:
    for line in ("import pickle", "from urllib.request import urlopen", "torch.load(file)", "eval(text)"):
        assert len(list(unsafe(line))) == 1
    assert list(unsafe("np.load(file, allow_pickle=True)")) == ["np.load", "allow_pickle=True"]
    assert list(unsafe("model.eval()\nsafetensors.torch.load_file(path)")) == []


AUDITED = """
import sys
connections = []
WATCHED = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request")
sys.addaudithook(lambda event, values: connections.append(event) if event in WATCHED else None)
import torch
from ctcguard import watch
with watch(on_error="alert", vocabulary=["<pad>", *"abcdefg"]) as guard:
    model = torch.nn.Linear(6, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        guard.batch(["http://example.org/clip", "two"])
        scores = model(torch.randn(30, 2, 6)).softmax(-1)
        lengths = torch.tensor([30, 28]), torch.tensor([4, 3])
        torch.nn.functional.ctc_loss(scores, torch.randint(1, 8, (2, 4)), *lengths).backward()
        optimizer.step()
assert guard.verdicts
if {connect}:
    import socket
    socket.socket().connect_ex(("127.0.0.1", 9))
print(connections)
"""


@pytest.mark.parametrize("connect", [False, True])
def test_a_guarded_run_opens_no_connection(connect: bool) -> None:
    """The twin connects once, to this machine, and is seen."""
    done = subprocess.run(
        [sys.executable, "-c", AUDITED.replace("{connect}", str(connect))], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("['socket.connect']\n" if connect else "[]\n")


HOSTILE = [
    "[bold red]not bold[/bold red][link=https://example.org]x[/link]",
    "\x1b[2J\x1b]0;owned\x07\x1b[31mred\x9b1m",
    "line one\nCTC999 forged · error\r\nline three\u2028x\u0085y",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "`code` **bold** [x](https://example.org) @everyone www.example.org mailto:a@example.org",
    "\u202egnirts desrever\u202c\u200b",
    "\ud800 \x00 \x7f",
    "x" * 100_000,
]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def a_verdict(text: str) -> Verdict:
    named = (Utterance(index=0, id=text, text=text, labels=(1, 2), note="5 frames for 7 labels"),)
    finding = Finding(
        code="CTC301", name="too-few-frames", severity=Severity.ERROR, cause="too-short", evidence=text, message=text,
        fix=text, utterances=named, affected=frozenset({0}), source="torch.ctc_loss", call_site=f"{text}.py:3",
    )  # fmt: skip
    return Verdict(root=finding)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_does_not_steer_the_console(text: str) -> None:
    screen = io.StringIO()
    ConsoleSink(Console(file=screen, force_terminal=True, color_system=None, width=100)).verdict(a_verdict(text))
    shown = screen.getvalue()
    assert CONTROL.search(shown) is None
    assert "\x1b" not in shown
    assert len(shown) < 40_000
    if text.startswith("[bold"):
        assert "[bold red]not bold" in shown


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_does_not_steer_what_an_exception_shows(text: str) -> None:
    shown = a_verdict(text).text()
    assert CONTROL.search(shown) is None
    assert len(shown) < 40_000


def test_a_name_forges_no_line() -> None:
    lines = a_verdict(HOSTILE[2]).utterance_lines()
    assert len(lines) == 1
    assert "\n" not in lines[0]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_only_text_in_an_alert(text: str) -> None:
    body = alert_text(a_verdict(text))
    *lines, link = body.splitlines()
    assert len(body) < 4000
    assert "<script" not in body
    assert "@everyone" not in body
    assert all(line.count("`") == 2 for line in lines)  # each line is one piece of code
    assert link.startswith("https://")
    assert CONTROL.search(body) is None


@pytest.mark.parametrize("text", HOSTILE[:6], ids=range(6))
def test_a_hostile_text_is_only_text_in_a_notebook(text: str) -> None:
    page = verdict_html(a_verdict(text))
    assert "<script" not in page
    assert "<img" not in page
    assert set(re.findall(r"</?(\w+)", page)) <= {"div", "table", "tbody", "tr", "th", "td"}


def test_file_names_are_never_made_of_data(capfd: pytest.CaptureFixture[str]) -> None:
    """Names with paths in them, a vocabulary with paths in it: and every file is where it always is."""
    symbols = ["<pad>", *(f"../{number}/evil" for number in range(10)), "x"]
    with watch(on_error="alert", run_dir=Path("run"), vocabulary=symbols) as guard:
        guard.batch(["../../escape", "/absolute", "nul\x00"])
        lengths = torch.tensor([20, 20, 20]), torch.tensor([4, 4, 3])
        scores = torch.randn(20, 3, 12).softmax(-1)
        torch.nn.functional.ctc_loss(scores, torch.randint(1, 12, (3, 4)), *lengths)
    assert guard.verdicts
    files = {path.as_posix() for path in Path().rglob("*") if path.is_file()}
    assert files
    assert all(re.fullmatch(r"run/(findings|readings)\.jsonl|run/\d+-CTC\d{3}\.safetensors", name) for name in files)
    text = Path("run/findings.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["type"] for line in text.splitlines()][-1] == "end"
    assert "\x00" not in text
    assert CONTROL.search(capfd.readouterr().err) is None


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_one_json_string_in_the_file(text: str) -> None:
    with watch(on_error="alert", run_dir=Path("run"), sinks=("jsonl",)) as guard:
        guard.batch([text, text, text])
        lengths = torch.tensor([20, 20, 20]), torch.tensor([4, 4, 3])
        scores = torch.randn(20, 3, 12).softmax(-1)
        torch.nn.functional.ctc_loss(scores, torch.randint(1, 12, (3, 4)), *lengths)
    lines = Path("run/findings.jsonl").read_bytes().split(b"\n")
    records = [json.loads(line) for line in lines if line]
    assert len(records) == len(lines) - 1
    assert {each["id"] for record in records for each in record.get("utterances", ())} == {text}


def test_the_page_names_tests_that_are_there() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`\s+\((tests/[\w/]+\.py)\)", page)
    assert len(named) >= 3
    assert all(f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") for name, file in named)
