"""The page as text: self-contained, escaped, and one line where it cannot be made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ctcguard.report
from ctcguard.cli import main
from ctcguard.report import write_report
from ctcguard.report.page import headline
from ctcguard.report.story import read_story
from ctcguard.report.words import cut, embedded, finite, label, symbol


class Outside(HTMLParser):
    """Whatever a page would load, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        names = {"src", "srcset", "data", "poster", "action"} | ({"href"} if tag != "a" else set())
        self.loaded += [value for name, value in known.items() if name in names and value and value != "data:,"]
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def parsed(text: str) -> Outside:
    found = Outside()
    found.feed(text)
    return found


def test_the_page_loads_nothing_and_has_three_scripts(broken: Path) -> None:
    text = write_report(broken).read_text("utf-8")
    found = parsed(text)
    assert found.loaded == []
    data, plotly, own = found.scripts
    assert json.loads(data)["timeline"]["data"]
    assert "plotly.js v" in plotly[:300]
    assert own.rstrip().endswith("})();")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text.partition("</style>")[0])


def test_twin_a_page_that_loads_something_is_seen() -> None:
    assert parsed("<link href='a.css'><img src='b.png'><a href='c'></a>").loaded == ["a.css", "b.png"]


def test_no_machine_path_is_on_the_page(broken: Path) -> None:
    assert str(broken.parent) not in write_report(broken).read_text("utf-8")


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "\u2028\u2029", "&lt;", "\ud800", '"\\'])
def test_data_in_a_script_is_safe_and_comes_back(text: str) -> None:
    written = embedded({"a": text})
    assert not set("<>&\u2028\u2029\ud800") & set(written)
    assert json.loads(written) == {"a": text}


def test_data_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embedded(float("nan"))
    assert [finite(value) for value in (float("nan"), float("inf"), 1.234567, 0, None, "x")] == [
        None, None, 1.2346, 0.0, None, None,
    ]  # fmt: skip


def test_words_are_cut_and_inert() -> None:
    assert cut("a" * 700).endswith("a … (700 characters)")
    assert symbol("\x00\t") == "\\x00\\t"
    assert symbol("x" * 50) == "x" * 11 + "…"
    assert label("<a href='javascript:x'>&") == "&lt;a href='javascript:x'&gt;&amp;"


def test_the_command_writes_the_page_and_names_it(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(broken)]) == 0
    assert capsys.readouterr().out == f"{broken / 'report.html'}\n"
    assert main(["report", str(broken), "--output", "elsewhere.html"]) == 0
    assert Path("elsewhere.html").stat().st_size > 1_000_000


def test_a_folder_without_a_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "nowhere"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ctcguard: nowhere is no directory: name the run directory, which holds findings.jsonl"
    ]


def test_without_the_extra_it_says_which_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctcguard.report, "_REQUIRED", ("jinja2", "not_installed_here"))
    assert main(["report", "nowhere"]) == 2
    assert capsys.readouterr().err == "ctcguard: the report needs not_installed_here: pip install 'ctcguard[report]'\n"


def test_the_command_line_stays_light() -> None:
    code = "import sys, ctcguard.cli, ctcguard.report; print({'jinja2', 'plotly', 'markdown_it'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_sentence_says_how_the_run_ended(broken: Path, healthy: Path, tmp_path: Path) -> None:
    assert headline(read_story(broken)).startswith("Training was stopped at step 6: the classes of a frame must sum")
    assert headline(read_story(healthy)) == "Nothing is wrong that ctcguard can see: 10 CTC calls in 10 steps."
    (tmp_path / "readings.jsonl").write_text('{"step": 0, "loss_max_nats": 1.0}\n', encoding="utf-8")
    assert headline(read_story(tmp_path)).endswith("so far: the run has not come to its end, or was killed.")


def test_half_a_character_does_no_harm(tmp_path: Path) -> None:
    line = {
        "type": "finding",
        "code": "CTC301",
        "name": "n",
        "severity": "error",
        "cause": "c",
        "message": "\ud800 end",
    }
    (tmp_path / "findings.jsonl").write_text(json.dumps(line | {"fix": "f"}) + "\n", encoding="utf-8")
    assert "? end" in write_report(tmp_path).read_text("utf-8")
