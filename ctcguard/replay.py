"""``ctcguard replay``: a recorded call judged again, on numpy alone, beside what its loss must be."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ctcguard._array import HostArray, quiet
from ctcguard.call import CTCCall, ctc_call
from ctcguard.finding import Finding, Severity
from ctcguard.judge import Judgement, describer, judge
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure, unpack
from ctcguard.readings import Readings
from ctcguard.record import Record, read
from ctcguard.reference import Alignment, best_alignment
from ctcguard.repairs import Given, Repair, log_softmax, repairs
from ctcguard.rules import ALL, Rule
from ctcguard.runner import STOPPED
from ctcguard.sinks.console import LABELS, panel
from ctcguard.verdict import Verdict, verdicts

TEXT_CHARACTERS, LABELS_SHOWN = 300, 40
AGREES_FRACTION, AGREES_NATS = 1e-3, 1e-3
"""How far a loss may be from the reference to be called equal: more than float32 loses, less than any mistake."""


@dataclass(frozen=True)
class Replayed:
    """A record judged again.

    Attributes
    ----------
    verdicts : tuple of Verdict
        Worst first; empty when no rule fires.
    not_run : tuple of str
        Codes of the record whose rules could not be run again, for want of readings: they stand as they were.
    """

    verdicts: tuple[Verdict, ...]
    not_run: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, in the order of the verdicts."""
        return tuple(finding for verdict in self.verdicts for finding in verdict.findings())


@dataclass(frozen=True, eq=False)
class Seen:
    """One recorded utterance beside what its loss must be.

    Attributes
    ----------
    index : int
        In the batch.
    id, text : str or None
        Where they are known.
    labels : tuple of int
        Within its target length.
    decoded : tuple of int
        The greedy decoding: the best class of each valid frame, repeats merged, blanks dropped.
    frames, repeats : int
        Its input length, and how many labels are equal to the one before them.
    given, reference : float or None
        The loss that the framework returned, and that of the float64 forward algorithm, nats.
    obstacle : str
        Why there is no reference.
    best : Alignment or None
        The most probable alignment.
    repairs : tuple of Repair
        What each fix would change.
    took : Given
        What the loss was given, in float64.
    """

    index: int
    id: str | None
    text: str | None
    labels: tuple[int, ...]
    decoded: tuple[int, ...]
    frames: int
    repeats: int
    given: float | None
    reference: float | None
    obstacle: str
    best: Alignment | None
    repairs: tuple[Repair, ...]
    took: Given

    def agrees(self) -> bool:
        """Whether the framework returned what it must: the reference, or as little of a number as that."""
        if self.given is None or self.reference is None:
            return False
        if not np.isfinite(self.given) or not np.isfinite(self.reference):
            return bool(np.array_equal(self.given, self.reference, equal_nan=True))
        return abs(self.given - self.reference) <= AGREES_NATS + AGREES_FRACTION * abs(self.reference)


def call_of(record: Record) -> CTCCall | None:
    """The call with its targets; its scores are zeros where they are not all there. None without targets (redact)."""
    targets, facts = record.arrays.get("targets"), record.readings
    if targets is None:
        return None
    shape = (facts["batch"], facts["frames"], facts["classes"])
    scores = record.scores if record.is_whole else np.broadcast_to(np.float32(0), shape)
    names = ("input_lengths", "target_lengths", "losses", "given_labels")
    arrays: dict[str, Any] = {name: record.arrays[name] for name in names if name in record.arrays}
    arrays[facts["expects"]] = scores
    return ctc_call(
        **arrays,
        targets=targets,
        blank=facts["blank"],
        reduction=facts["reduction"],
        zero_infinity=facts["zero_infinity"],
        framework=facts["framework"],
        source=facts["source"],
        provenance=record.provenance,
        utterance_ids=tuple(name or "" for name in record.ids) if any(record.ids) else (),
        unknown=record.about["unknown"],
    )


def readings_of(record: Record) -> Readings:
    """What was measured in the run, and in its place what can be measured again from the arrays."""
    call = call_of(record)
    if call is None:
        return Readings(record.readings)
    probes = (*CONTRACT, *DISTRIBUTION) if record.is_whole else CONTRACT
    measured = unpack(*measure(call, probes))
    return Readings({**record.readings, **measured}, describer(call, record.vocabulary))


def rules_of(record: Record) -> list[Rule]:
    """The rules of the run with their thresholds, as far as this version has them; those about a call."""
    kept = record.about["rules"]
    rules = [rule(**kept[rule.code]) for rule in ALL if rule.code in kept]
    return [rule for rule in rules if not rule.about_vocabulary()]


def judged_again(record: Record) -> Replayed:
    """Run the rules on a record.

    Parameters
    ----------
    record : Record
        Rules whose readings are neither in it nor can be measured again are not run; what they said in the run stands,
        as does what was said of the vocabulary.
    """
    rules, readings = rules_of(record), readings_of(record)
    findings, healthy = judge(rules, readings, record.where)
    return _joined(record, Judgement(findings, healthy))


def _joined(record: Record, now: Judgement) -> Replayed:
    ran = {finding.code for finding in now.findings} | {code for code, _ in now.healthy}
    standing = [finding for finding in record.findings if finding.code not in ran]
    healthy = [*now.healthy, *(pair for pair in record.healthy if pair[0] not in ran)]
    found = verdicts([*now.findings, *standing], healthy)
    return Replayed(found, tuple(sorted({finding.code for finding in standing})))


def utterances(record: Record, findings: Iterable[Finding]) -> Iterator[Seen]:
    """Each utterance whose scores and labels were kept.

    Parameters
    ----------
    record : Record
        One without scores or targets has none.
    findings : iterable of Finding
        Whose fixes are tried.
    """
    call = call_of(record)
    if call is None or record.scores is None:
        return
    describe, causes = describer(call), tuple(findings)
    losses, repeats = record.arrays.get("losses"), unpack(*measure(call, CONTRACT)).get("adjacent_repeats")
    for row, index in enumerate(record.kept):
        labels = describe(index).labels or ()
        given = _given(record, row, labels)
        whole = record.scores.shape[1] == call.frames
        obstacle = given.obstacle() if whole else f"only {record.scores.shape[1]} of {call.frames} frames were kept"
        computable = not obstacle
        yield Seen(
            index=index,
            id=record.ids[index],
            text=record.texts[index],
            labels=labels,
            decoded=_greedy(given),
            frames=given.frames,
            repeats=int(np.asarray(repeats)[index]) if repeats is not None else 0,
            given=None if losses is None else float(losses[index]),
            reference=given.loss() if computable else None,
            obstacle=obstacle,
            best=_best(given) if computable else None,
            repairs=tuple(repairs(causes, given)) if whole else (),
            took=given,
        )


def _given(record: Record, row: int, labels: tuple[int, ...]) -> Given:
    scores = np.asarray(record.scores)[row].astype(np.float64)
    return Given(
        log_probs=log_softmax(scores) if record.readings["expects"] == "logits" else scores,
        scores=scores,
        labels=np.asarray(labels, dtype=int),
        frames=int(record.arrays["input_lengths"][record.kept[row]]),
        blank=record.readings["blank"],
    )


def _greedy(given: Given) -> tuple[int, ...]:
    best = given.scores[: max(0, given.frames)].argmax(axis=1) if given.scores.shape[1] else np.zeros(0, int)
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    return tuple(int(label) for label in best[starts] if label != given.blank)


def _best(given: Given) -> Alignment | None:
    valid: HostArray = given.log_probs[: given.frames]
    return None if np.isnan(valid).any() else best_alignment(valid, given.labels, given.blank)


def replay(path: Path, console: Console | None = None) -> int:
    """Print a record and what it shows.

    Parameters
    ----------
    path : Path
        A file that a guard wrote.
    console : rich.console.Console, optional
        stdout by default; plain text when that is not a terminal.

    Returns
    -------
    int
        3 when an error is found, else 0.

    Raises
    ------
    RecordError
        When it is no record.
    """
    record = read(path)
    console = console or Console(file=sys.stdout, highlight=False)
    with quiet():
        found = judged_again(record)
        console.print(Text(_origin(record), style="dim"))
        for verdict in found.verdicts:
            console.print(panel(verdict))
        console.print(Text(_comparison(record, found), style="bold"))
        for seen in utterances(record, [verdict.root for verdict in found.verdicts]):
            console.print(Text(_name(seen), style="bold"), _block(record, seen), sep="\n")
        for what, why in sorted(record.about["left_out"].items()):
            console.print(Text(f"not in the record: {what} ({why})", style="dim"))
    return STOPPED if any(finding.severity is Severity.ERROR for finding in found.findings) else 0


def _origin(record: Record) -> str:
    where, versions = record.where, record.about["versions"]
    place = " at ".join(part for part in (where.source, where.call_site) if part)
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{where.phase} step {where.step}: {place} · written by ctcguard {record.about['ctcguard']} with {with_what}"


def _comparison(record: Record, found: Replayed) -> str:
    before, now = ([(verdict.code, verdict.cause) for verdict in each] for each in (record.verdicts, found.verdicts))
    if before == now:
        said = "the verdict is that of the run" if now else "no rule fires, as in the run"
    else:
        was = "; ".join(f"{code} {cause}" for code, cause in before) or "no finding"
        said = f"the run said otherwise: {was}"
    return said + (f"; not run again: {', '.join(found.not_run)}" if found.not_run else "")


def _name(seen: Seen) -> str:
    return f"utterance {seen.index}" + (f" (id {_shown(seen.id)})" if seen.id else "")


def _block(record: Record, seen: Seen) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, justify="right", min_width=9)
    table.add_column(overflow="fold")
    for label, text in rows(record, seen):
        table.add_row(Text(label, style=LABELS.get(label, "dim")), Text(text))
    return table


def rows(record: Record, seen: Seen) -> list[tuple[str, str]]:
    """What is said of an utterance as ``(label, text)`` pairs, in the order in which they are read."""
    spelt = seen.text is not None or (record.vocabulary is not None and bool(record.vocabulary.symbols))
    found = [("text" if spelt else "labels", _words(record, seen.labels, seen.text))]
    found.append(("decoded", _words(record, seen.decoded)))
    needed = len(seen.labels) + seen.repeats
    found.append(("frames", f"{seen.frames}; {len(seen.labels)} labels and {seen.repeats} repeats need {needed}"))
    found.append(("loss", _losses(seen)))
    if seen.best is not None:
        found.append(("best", _aligned(seen.best, record.readings["blank"])))
    return found + [("fix", f"{repair.words} the loss is {repair.nats:.2f} nats") for repair in seen.repairs]


def _losses(seen: Seen) -> str:
    given = "not known" if seen.given is None else f"{seen.given:.6g} nats"
    if seen.reference is None:
        return f"{given}; no reference: {seen.obstacle}"
    verdict = "" if seen.given is None else ": they agree" if seen.agrees() else ": they DISAGREE"
    return f"{given}; float64 reference of these scores {seen.reference:.6g} nats{verdict}"


def _aligned(best: Alignment, blank: int) -> str:
    said = np.flatnonzero(best.path != blank)
    if not best.path.size:
        return "there is no alignment"
    where = f"labels in frames {said[0]} to {said[-1]}" if said.size else "all blank"
    return f"alignment of {best.cost:.6g} nats, {where}"


def _words(record: Record, labels: tuple[int, ...], text: str | None = None) -> str:
    """A text as it was spelt, else the symbols of the labels, else the labels."""
    if text is None and record.vocabulary is not None:
        text = record.vocabulary.text(labels)
    if text is not None:
        return _shown(text)
    more = f" … ({len(labels)} labels)" if len(labels) > LABELS_SHOWN else ""
    return " ".join(map(str, labels[:LABELS_SHOWN])) + more if labels else "none"


def _shown(text: str) -> str:
    """A text from a data set, quoted: nothing in it can steer a terminal."""
    more = f" … ({len(text):,} characters)" if len(text) > TEXT_CHARACTERS else ""
    return repr(text[:TEXT_CHARACTERS]) + more
