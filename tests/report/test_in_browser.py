"""The page in a real browser: it opens from disk, asks for nothing, shows what happened, and runs no text of a run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ctcguard.finding import Severity
from ctcguard.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
LARGE_STEPS, LARGE_FINDINGS = 100_000, 200
LIMIT_S, LIMIT_OPEN_S, LIMIT_BYTES = 10, 20, 7_000_000


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runs = _neighbour("conftest")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests: Debian's, for Playwright's own would have to be downloaded."""
    if CHROMIUM is None:
        if IN_CI:
            pytest.fail("no chromium: .ci/run installs it")
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


class Opened:
    """A page, and whatever it said or asked for.

    Attributes
    ----------
    page : Page
        With the report in it.
    complaints : list of str
        Console messages, errors, and dialogs.
    requests : list of str
        Addresses asked for, that of the page itself too.
    """

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.page: Page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.absolute().as_uri())
        self.path = path

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def shown_rows(self) -> int:
        return self.page.locator("#findings tbody tr:visible").count()


@pytest.fixture(scope="module")
def opened(browser: Browser, broken: Path) -> Iterator[Opened]:
    """The report of the broken run; each test leaves it as it found it, or does not mind."""
    page = Opened(browser, write_report(broken))
    yield page
    page.page.close()


def test_the_verdict_is_on_top(opened: Opened) -> None:
    heading = opened.text("h1")
    assert heading.startswith(f"Training was stopped at step {runs.STOPPED_AT}: the classes of a frame must sum to 1")
    assert "pass log_softmax(x, -1) instead of softmax(x, -1)" in opened.text("#verdict .todo")
    box = opened.page.locator("h1").bounding_box()
    assert box is not None
    assert box["y"] < 200


def test_the_timeline_has_the_findings_and_the_readings(opened: Opened) -> None:
    traces = opened.page.evaluate("document.getElementById('timeline-plot').data.map(t => [t.name, t.x.length])")
    found = dict(traces)
    assert found["finding"] == 3
    assert found["median"] == runs.STOPPED_AT + 1
    assert {"largest log-prob", "frames won by the blank", "time of the guard"} <= found.keys()
    width = opened.page.evaluate("document.querySelector('#timeline-plot .main-svg').clientWidth")
    assert width > 900


def test_hovering_over_the_timeline_reads_all_curves(opened: Opened) -> None:
    opened.page.locator("#timeline-plot").scroll_into_view_if_needed()
    opened.page.locator("#timeline-plot .nsewdrag").nth(1).hover()
    hover = opened.page.locator("#timeline-plot .hoverlayer")
    hover.locator("text").first.wait_for(timeout=5000)
    assert "median" in hover.text_content()  # type: ignore[operator]


def test_hovering_over_the_posteriorgram_says_the_probability(opened: Opened) -> None:
    plot = opened.page.locator(".posteriorgram .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".nsewdrag").first.wait_for(timeout=5000)
    plot.locator(".nsewdrag").first.hover()
    label = plot.locator(".hoverlayer")
    label.locator("text").first.wait_for(timeout=5000)
    assert "probability" in (label.text_content() or "")
    assert "frame" in opened.text(".posteriorgram output")


def test_the_posteriorgram_names_the_symbols_and_shows_the_alignment(opened: Opened) -> None:
    plot = opened.page.locator(".posteriorgram .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".ytick text").first.wait_for(timeout=5000)
    ticks = plot.locator(".ytick text").all_text_contents()
    assert ticks == ["<pad>", "␣", "<script>win…", "\"'`&lt;", "שלום\\u202ea…", "🦆", "<b>", "\\u2028", "e", "f"]
    traces = plot.evaluate("plot => plot.data.map(t => [t.type, t.name || ''])")
    assert traces == [["heatmap", ""], ["scatter", "best alignment"]]


def test_the_fix_can_be_looked_at(opened: Opened) -> None:
    block = opened.page.locator(".posteriorgram").first
    block.scroll_into_view_if_needed()
    largest = "block => block.querySelector('.plot').data[0].z.flat().reduce((a, b) => Math.max(a, b))"
    block.get_by_role("button", name="as the loss took it").wait_for(timeout=5000)
    before = block.evaluate(largest)
    block.get_by_role("button", name="after log_softmax instead of softmax").click()
    assert before >= 1  # exp of a probability
    assert block.evaluate(largest) < 1
    block.get_by_role("button", name="as the loss took it").click()
    assert block.evaluate(largest) == before


def test_the_keyboard_reads_frame_by_frame(opened: Opened) -> None:
    slider = opened.page.locator(".posteriorgram input").first
    slider.focus()
    for _ in range(3):
        opened.page.keyboard.press("Home")
    opened.page.keyboard.press("ArrowRight")
    assert opened.text(".posteriorgram output").startswith("frame 1: ")
    assert "alignment: " in opened.text(".posteriorgram output")


def test_the_first_key_leads_past_the_header(browser: Browser, broken: Path) -> None:
    fresh = Opened(browser, write_report(broken)).page
    fresh.keyboard.press("Tab")
    assert fresh.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    assert fresh.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    fresh.keyboard.press("Enter")
    assert fresh.evaluate("document.activeElement.id") == "verdict"
    fresh.close()


def test_the_filter_filters(opened: Opened) -> None:
    assert opened.shown_rows() == 3
    opened.page.get_by_label("Rule", exact=True).select_option("CTC402")
    assert opened.shown_rows() == 1
    assert opened.text("#filter-count") == "1 of 3 findings"
    opened.page.get_by_label("Rule", exact=True).select_option("any")
    opened.page.get_by_label("Text", exact=True).fill("NEGATIVE loss")
    assert opened.shown_rows() == 1
    assert "CTC501" in opened.text("#findings tbody tr:visible")
    opened.page.get_by_label("Severity", exact=True).select_option("warning")
    assert opened.shown_rows() == 0
    opened.page.get_by_label("Severity", exact=True).select_option("any")
    opened.page.get_by_label("Text", exact=True).fill("")
    assert opened.shown_rows() == 3


def test_the_page_of_the_rule_opens_where_it_is_named(opened: Opened) -> None:
    opened.page.locator("#findings tbody a", has_text="CTC402").first.click()
    manual = opened.page.locator("#rule-CTC402")
    assert manual.evaluate("details => details.open")
    assert "Why is this bad?" in manual.inner_text()


def test_hostile_texts_are_texts(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    body = opened.page.locator("body").inner_text()
    for text in (runs.SCRIPT, runs.QUOTES, runs.DUCK, *runs.IDS[:3]):
        assert text in body, text
    assert "long name long name" in body
    assert runs.LONG not in body
    assert opened.page.evaluate("window.pwned") is None
    assert opened.page.evaluate("[...document.querySelectorAll('main img, main script, main iframe')].length") == 0
    inside = "[...document.querySelectorAll('main bdi')].filter(e => e.textContent.includes('\\u202e')).length"
    assert opened.page.evaluate(inside) > 0, "what turns the direction of text must stand in an element of its own"


def test_every_figure_and_field_has_a_name(opened: Opened) -> None:
    unnamed = """[...document.querySelectorAll('[role=img], [role=region], [role=group], form, nav')]
        .filter(e => !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby')).length"""
    assert opened.page.evaluate(unnamed) == 0
    assert (
        opened.page.evaluate("[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).length")
        == 0
    )
    assert opened.page.locator("h1").count() == 1
    levels = opened.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = opened.page.evaluate("[...document.querySelectorAll('section[id], details[id], form [id]')].map(e => e.id)")
    assert len(names) == len(set(names))


CONTRAST = """selector => {
  const parse = text => text.match(/[\\d.]+/g).map(Number), element = document.querySelector(selector);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let below = element;
  while (parse(getComputedStyle(below).backgroundColor)[3] === 0) below = below.parentElement;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(parse(getComputedStyle(below).backgroundColor))];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_both_schemes(opened: Opened, scheme: Any) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    dark = opened.page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])") < 128
    assert dark == (scheme == "dark")
    for selector in ("h1", ".todo", "#verdict h2", "#verdict dt", "#verdict dd.fix", ".said", ".tag.error", "nav a"):
        assert opened.page.evaluate(CONTRAST, selector) >= 4.5, selector
    opened.page.emulate_media(color_scheme="light")


def test_it_prints_whole(browser: Browser, broken: Path) -> None:
    fresh = Opened(browser, write_report(broken))
    printed = fresh.page.pdf()
    assert printed.startswith(b"%PDF")
    assert fresh.page.evaluate("[...document.querySelectorAll('details')].every(details => details.open)")
    blocks = fresh.page.locator(".posteriorgram").count()
    assert blocks == 4
    assert fresh.page.locator(".posteriorgram .main-svg:first-child").count() >= blocks
    assert fresh.complaints == []
    fresh.page.close()


def test_it_fits_a_telephone(browser: Browser, broken: Path) -> None:
    narrow = Opened(browser, write_report(broken), viewport={"width": 380, "height": 800})
    narrow.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 380
    assert narrow.complaints == []
    narrow.page.close()


def test_it_asks_for_nothing_and_complains_of_nothing(opened: Opened) -> None:
    for block in opened.page.locator(".posteriorgram").all():
        block.scroll_into_view_if_needed()
    assert opened.requests == [opened.path.absolute().as_uri()]
    assert opened.complaints == []


def test_twin_a_page_that_asks_and_complains_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<img src='other.png'><script>console.error('bad'); alert('hello')</script>", encoding="utf-8")
    seen = Opened(browser, page)
    assert [Path(url).name for url in seen.requests] == ["page.html", "other.png"]
    assert {"bad", "hello"} <= set(seen.complaints)
    seen.page.close()


def test_a_redacted_run_says_so(browser: Browser, redacted: Path) -> None:
    page = Opened(browser, write_report(redacted))
    assert "kept out by redact=True: ids, " in page.text("#calls .note")
    assert page.page.locator(".posteriorgram").count() == 0
    source = page.path.read_text("utf-8")
    assert "onerror=window.pwned" not in source
    assert "window.pwned" not in source
    assert page.complaints == []
    page.page.close()


def test_a_healthy_run_says_so(browser: Browser, healthy: Path) -> None:
    page = Opened(browser, write_report(healthy))
    assert page.text("h1") == "Nothing is wrong that ctcguard can see: 10 CTC calls in 10 steps."
    assert page.page.locator("#findings, #calls, #rules").count() == 0
    assert page.page.locator("#timeline-plot .main-svg").count() > 0
    assert page.complaints == []
    page.page.close()


def test_a_long_run_makes_a_small_page_soon(browser: Browser, tmp_path: Path) -> None:
    rows = (
        {"step": i, "loss_max_nats": 9.0 + i % 7, "loss_median_nats": 5.0, "loss_min_nats": 1.0, "log_prob_max": -0.1}
        | {"logsumexp_abs_max": 1e-7, "blank_fraction": 0.5, "infeasible_fraction": 0.0, "overhead_fraction": 0.01}
        | ({"loss_max_nats": 777.0} if i == 54_321 else {})
        for i in range(LARGE_STEPS)
    )
    severities = [Severity.ERROR, Severity.WARNING, Severity.INFORMATION]
    findings = [
        runs.a_finding(500 * i, severities[i % 3], code=f"CTC30{i % 5 + 1}", message=f"number {i} " * 20)
        for i in range(LARGE_FINDINGS)
    ]
    folder = runs.write_run(tmp_path / "run", findings, rows)
    started = time.process_time()  # of this process alone: the machine may be busy
    path = write_report(folder)
    assert time.process_time() - started < LIMIT_S
    assert path.stat().st_size < LIMIT_BYTES
    started = time.perf_counter()
    page = Opened(browser, path)
    page.page.locator("#timeline-plot .main-svg").first.wait_for(timeout=1000 * LIMIT_OPEN_S)
    assert time.perf_counter() - started < LIMIT_OPEN_S
    assert page.shown_rows() == LARGE_FINDINGS
    assert page.page.evaluate("Math.max(...document.getElementById('timeline-plot').data[1].y)") == 777, (
        "a spike is kept"
    )
    page.page.get_by_label("Rule", exact=True).select_option("CTC303")
    assert page.shown_rows() == LARGE_FINDINGS // 5
    assert page.complaints == []
    page.page.close()
