"""Findings and verdicts show themselves in a notebook, whatever their texts hold."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.verdict import Verdict

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table>",
    "&lt;b&gt;",
    "'",
    "\u202eمرحبا 🦆",
]


class Page(HTMLParser):
    """Tags, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open = 0
        self.texts = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open += 1

    def handle_endtag(self, tag: str) -> None:
        self.open -= 1

    def handle_data(self, data: str) -> None:
        self.texts += data


def a_finding(text: str = "plain", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(
        code="CTC402", name="unnormalised-log-probs", severity=severity, cause="probabilities", evidence=text,
        message=text, fix=text, step=3, source="torch.ctc_loss", call_site=text,
        utterances=(Utterance(index=1, id=text, text=text, note=text),), affected=frozenset({1, 2}),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("what", ["finding", "verdict"])
def test_text_stays_text(text: str, what: str) -> None:
    finding = a_finding(text)
    shown = (finding if what == "finding" else Verdict(root=finding, also=(a_finding(text),)))._repr_html_()
    page = Page(shown)
    assert set(page.tags) == {"div", "table", "tbody", "tr", "th", "td"}
    assert page.attributes == {"style", "scope", "dir"}
    assert page.open == 0
    assert text in page.texts


def test_it_says_what_the_text_says() -> None:
    verdict = Verdict(root=a_finding(), also=(a_finding("a symptom"),), ruled_out=("CTC201",))
    shown = Page(verdict._repr_html_()).texts
    for part in (verdict.headline(), verdict.place(), *(text for _, text in verdict.rows())):
        assert part in shown


def test_severity_is_not_told_by_colour_alone() -> None:
    shown = [a_finding(severity=severity)._repr_html_() for severity in Severity]
    assert len(set(shown)) == 3
    assert all(severity.value in Page(html).texts for severity, html in zip(Severity, shown, strict=True))
