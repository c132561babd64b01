"""The report as one HTML page: what the template shows, and the scripts and styles that go into it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ctcguard import __version__, rule_pages
from ctcguard._array import quiet
from ctcguard.errors import SettingsError
from ctcguard.finding import Finding, Severity
from ctcguard.record import Record
from ctcguard.replay import Seen, rows, utterances
from ctcguard.report import figures
from ctcguard.report.drawing import chain, drawing, inputs
from ctcguard.report.story import Story
from ctcguard.report.words import cut, embedded
from ctcguard.verdict import Verdict

HERE = Path(__file__).parent
VERDICTS_SHOWN, FINDINGS_SHOWN = 20, 500
UTTERANCES_SHOWN, UTTERANCES_OF_RECORD = 24, 8
ROW_LABELS = {"": "what", "in": "where", "healthy": "ruled out", "also": "symptoms"}
SPOKEN_LABELS = {"best": "best alignment", "text": "transcript", "decoded": "greedy decoding", "fix": "with the fix"}
PROGRESS = {
    "raise": "Training was stopped",
    "stop": "Training was ended",
    "alert": "Training went on",
    "log": "Training went on",
}


@dataclass(frozen=True)
class Block:
    """A recorded utterance on the page."""

    heading: str
    brief: str
    rows: list[tuple[str, str]]
    figure: str
    spoken: str


def page(story: Story) -> str:
    """The whole page."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cut"] = cut
    data: dict[str, Any] = {"timeline": figures.timeline(story), "posteriorgrams": {}}
    records = list(_records(story, data["posteriorgrams"]))
    verdicts = story.worst()
    return environment.get_template("page.html.j2").render(
        title=f"ctcguard: {story.folder.resolve().name}",
        headline=headline(story),
        todo=verdicts[0].root.fix.rstrip(".") if verdicts else "",
        severity=verdicts[0].root.severity.value if verdicts else "healthy",
        story=story,
        verdicts=[_verdict(verdict) for verdict in verdicts[:VERDICTS_SHOWN]],
        more_verdicts=max(0, len(verdicts) - VERDICTS_SHOWN),
        findings=_findings(story),
        codes=sorted({finding.code for finding in story.findings}),
        severities=[each.value for each in Severity],
        records=records,
        rules=_rules(story.findings),
        facts=_facts(story),
        timeline_said=_timeline_said(story),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(_plotly()) if data["timeline"] or data["posteriorgrams"] else "",
        data=Markup(embedded(data)),
        version=__version__,
    )


def _plotly() -> str:
    """Plotly's own script; what would end the script element is no part of it, or would be broken up."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def headline(story: Story) -> str:
    """The verdict as a sentence."""
    worst = story.worst()
    if worst:
        root, action = worst[0].root, worst[0].action
        moment = "before training" if root.phase == "setup" else f"at step {root.step:,}"
        phase = " of an evaluation" if root.phase == "eval" else ""
        said = cut(root.message, 300).rstrip(".")
        return f"{PROGRESS.get(action, 'Training went on')} {moment}{phase}: {said}."
    noted = [finding for finding in story.findings if finding.severity is not Severity.INFORMATION]
    found = f"{len(story.findings)} findings, no verdict" if noted else "Nothing is wrong that ctcguard can see"
    if story.end is None:
        return f"{found} so far: the run has not come to its end, or was killed."
    return f"{found}: {story.end['calls']:,} CTC calls in {story.end['steps']:,} steps."


def _verdict(verdict: Verdict) -> dict[str, Any]:
    body = [(ROW_LABELS.get(name, name), cut(text, 2000)) for name, text in verdict.rows() if name != "more"]
    return {
        "headline": verdict.headline(),
        "place": verdict.place(),
        "rows": body,
        "code": verdict.code,
        "severity": verdict.root.severity.value,
    }


def _findings(story: Story) -> list[dict[str, Any]]:
    pairs = list(zip(story.findings, story.counts, strict=True))[:FINDINGS_SHOWN]
    return [
        {
            "finding": finding,
            "concerned": count,
            "utterances": Verdict(root=finding).utterance_lines(),
            "place": Verdict(root=finding).place(),
            "search": cut(f"{finding.code} {finding.name} {finding.cause} {finding.message}".lower(), 400),
        }
        for finding, count in pairs
    ]


def _records(story: Story, drawn: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The flight records, worst first, with as many of their utterances as there is room for."""
    codes = [verdict.code for verdict in story.worst()]
    order = {code: number for number, code in reversed(list(enumerate(codes)))}
    room = UTTERANCES_SHOWN
    ranked = sorted(story.records, key=lambda item: min([order.get(v.code, 99) for v in item[1].verdicts], default=99))
    for number, (path, record) in enumerate(ranked):
        roots = [verdict.root for verdict in record.verdicts]
        with quiet():
            blocks = [_block(number, record, seen, roots, drawn) for seen in _concerned(record, roots, room)]
        room -= len(blocks)
        yield {
            "name": path.name,
            "file": path.relative_to(story.folder).as_posix(),
            "heading": _heading(record),
            "drawing": Markup(drawing(chain(record.provenance, roots, record.where.source), inputs(roots))),
            "blocks": blocks,
            "more": len(record.kept) - len(blocks) if record.scores is not None else 0,
            "left_out": _left_out(record),
        }


def _heading(record: Record) -> str:
    codes = ", ".join(f"{verdict.code} {verdict.root.name}" for verdict in record.verdicts) or "on request"
    moment = record.where
    return f"{'evaluation, ' if moment.phase == 'eval' else ''}step {moment.step:,}: {codes}"


def _left_out(record: Record) -> list[str]:
    """What is not in a record, and why; what was held back on purpose in one sentence."""
    left = record.about["left_out"]
    secret = sorted(name for name, why in left.items() if why == "redact")
    said = [f"kept out by redact=True: {', '.join(secret)}"] if secret else []
    return said + [f"{name}: {why}" for name, why in sorted(left.items()) if why != "redact"]


def _concerned(record: Record, roots: Sequence[Finding], room: int) -> list[Seen]:
    """The utterances that the findings name, then others, as far as there is room; of those with scores."""
    if record.scores is None or room <= 0:
        return []
    named = [utterance.index for root in roots for utterance in root.utterances]
    affected = sorted(index for root in roots for index in root.affected)
    rank = {index: place for place, index in reversed(list(enumerate([*named, *affected])))}
    order = sorted(range(len(record.kept)), key=lambda row: rank.get(record.kept[row], len(rank)))
    wanted = order[: min(room, UTTERANCES_OF_RECORD)]
    part = {**record.about, "kept": [record.kept[row] for row in wanted]}
    scores = np.ascontiguousarray(record.scores[wanted])
    return list(utterances(replace(record, about=part, arrays={**record.arrays, "scores": scores}), roots))


def _block(number: int, record: Record, seen: Seen, roots: Sequence[Finding], drawn: dict[str, Any]) -> Block:
    name = f"u{number}-{seen.index}"
    drawn[name] = figures.posteriorgram(record, seen, roots)
    said = [(SPOKEN_LABELS.get(label, label), cut(text, 2000)) for label, text in rows(record, seen)]
    frames, classes = drawn[name]["frames"], len(drawn[name]["classes"])
    spoken = f"Probability of {classes} classes in {frames} frames"
    spoken += ", with the best alignment as a line" if drawn[name]["path"] else ", without an alignment"
    called = f" · {cut(seen.id, 80)}" if seen.id else ""
    return Block(f"Utterance {seen.index}{called}", cut(said[0][1], 80), said, name, spoken)


def _rules(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The manual pages of the rules that fired."""
    pages = []
    for code in sorted({finding.code for finding in findings}):
        try:
            rule = rule_pages.find(code)
        except SettingsError:  # of another version of ctcguard
            continue
        body = rule_pages.page(rule).split("\n", 1)[1].replace("\n## ", "\n#### ")
        pages.append({"code": code, "title": rule_pages.title(rule), "body": Markup(_markdown().render(body))})
    return pages


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False})


def _timeline_said(story: Story) -> str:
    steps = [row["step"] for row in story.rows]
    curves = (
        f"Readings of {len(steps):,} of {story.calls:,} calls, steps {steps[0]:,} to {steps[-1]:,}" if steps else ""
    )
    counted = Counter(finding.severity.value for finding in story.findings)
    found = ", ".join(f"{count} of severity {name}" for name, count in counted.items()) or "none"
    return "; ".join(part for part in (curves, f"findings: {found}") if part)


def _facts(story: Story) -> list[tuple[str, str]]:
    facts = [("run directory", story.folder.resolve().name)]
    if story.end is not None:
        end = story.end
        facts += [("optimizer steps", f"{end['steps']:,}"), ("CTC calls", f"{end['calls']:,}")]
        facts += [("findings", f"{end['findings']:,}")]
        facts += [("time taken by the guard", f"{end['overhead_fraction']:.2%}")]
    facts += [("processes", f"{story.ranks}")] if story.ranks > 1 else []
    facts += [("readings of", story.rank)] if story.rank else []
    facts += [("runs in this directory", f"{story.runs}")] if story.runs > story.ranks else []
    if story.findings:
        facts.append(("first finding", _clock(story.findings[0].time)))
    if story.records:
        record = story.records[0][1]
        facts += [(name, version) for name, version in record.about["versions"].items()]
        facts.append(("written by", f"ctcguard {record.about['ctcguard']}"))
        facts += [(name, f"{value}") for name, value in _settings(record)]
    return [(name, cut(text, 300)) for name, text in facts]


def _settings(record: Record) -> Iterator[tuple[str, Any]]:
    shown = ("on_error", "on_warning", "budget", "strict", "probe_model", "redact", "record_mb", "ignore")
    known = record.about["settings"]
    yield from ((f"setting {name}", known[name]) for name in shown if known.get(name) not in (None, [], ""))


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
