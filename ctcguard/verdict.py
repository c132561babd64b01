"""Many symptoms, one cause: findings of one call become verdicts, one per root."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ctcguard.finding import SCHEMA, Finding, Severity

Healthy = Collection[tuple[str, tuple[str, ...]]]
"""Rules that ran and found nothing: code, and the codes that they could have explained."""
NAME_CHARACTERS, ROW_CHARACTERS = 200, 3000
"""How much of a name or transcript from a data set, and of a whole row, is shown."""


class Verdict(BaseModel):
    """A root cause with the symptoms that it explains.

    Attributes
    ----------
    root : Finding
        The finding that no other finding explains.
    also : tuple of Finding
        Its symptoms.
    ruled_out : tuple of str
        Codes of rules that could have explained them, were run, and found nothing.
    action : str
        The reaction: ``raise``, ``stop``, ``alert`` or ``log``.
    """

    model_config = ConfigDict(frozen=True)

    root: Finding
    also: tuple[Finding, ...] = ()
    ruled_out: tuple[str, ...] = ()
    action: str = "log"

    @property
    def code(self) -> str:
        """Code of the root, for instance ``"CTC402"``."""
        return self.root.code

    @property
    def cause(self) -> str:
        """Cause slug of the root."""
        return self.root.cause

    @property
    def step(self) -> int:
        """Optimizer steps taken before the root was found."""
        return self.root.step

    def findings(self) -> tuple[Finding, ...]:
        """The root and its symptoms."""
        return (self.root, *self.also)

    def record(self) -> dict[str, Any]:
        """The JSON object for ``findings.jsonl``."""
        return {
            "type": "verdict",
            "schema": SCHEMA,
            "code": self.code,
            "cause": self.cause,
            "step": self.step,
            "also": sorted({finding.code for finding in self.also}),
            "ruled_out": list(self.ruled_out),
            "action": self.action,
        }

    def headline(self) -> str:
        """Code, name, severity, moment and, among several, the rank in one short line."""
        root = self.root
        moment = "before training" if root.phase == "setup" else f"step {root.step}"
        phase = ["evaluation"] if root.phase == "eval" else []
        rank = [f"rank {root.rank} of {root.ranks}"] if root.ranks > 1 else []
        return " · ".join([f"{root.code} {root.name}", root.severity.value, *phase, moment, *rank])

    def place(self) -> str:
        """The function that was called, and the user's own line."""
        return " at ".join(part for part in (self.root.source, self.root.call_site) if part)

    def rows(self) -> list[tuple[str, str]]:
        """The body as ``(label, text)`` pairs, in the order in which they are read."""
        root = self.root
        rows = [("", root.message)]
        rows += [("cause", f"{root.cause}: {root.evidence}" if root.evidence else root.cause), ("fix", root.fix)]
        rows += [("in", line) for line in self.utterance_lines()]
        if self.also:
            rows.append(("also", "; ".join(f"{f.code} {f.name} ({f.message})" for f in self.also)))
        if self.ruled_out:
            rows.append(("healthy", ", ".join(self.ruled_out)))
        rows.append(("more", f"ctcguard explain {root.code}"))
        return [(label, inert(text, ROW_CHARACTERS)) for label, text in rows]

    def utterance_lines(self) -> list[str]:
        """One line per utterance named, and one for those left out."""
        lines = []
        for item in self.root.utterances:
            known = [f"utterance {item.index}"]
            known += [f"id {inert(item.id, NAME_CHARACTERS, keep='')}"] if item.id is not None else []
            known += [repr(cut(item.text, NAME_CHARACTERS))] if item.text is not None else []
            lines.append(" ".join(known) + (f": {item.note}" if item.note else ""))
        hidden = len(self.root.affected) - len(self.root.utterances)
        return [*lines, *([f"and {hidden} more"] if hidden > 0 else [])]

    def text(self) -> str:
        """The whole verdict as plain text."""
        place = f" · {inert(self.place(), ROW_CHARACTERS)}" if self.place() else ""
        body = [f"  {label + ': ':<7}{text}" if label else f"  {text}" for label, text in self.rows()]
        return "\n".join([self.headline() + place, *body])

    def _repr_html_(self) -> str:
        from ctcguard.notebook import verdict_html

        return verdict_html(self)


def cut(text: str, characters: int) -> str:
    """A long text without its middle."""
    half = characters // 2 - 1
    return text if len(text) <= characters else f"{text[:half]} … {text[-half:]}"


def inert(text: str, characters: int, keep: str = "\n") -> str:
    """A text, cut, in which no character steers a terminal or turns the reading direction: as Python escapes them."""
    known = cut(text, characters)
    if known.isprintable():
        return known
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in known)


def explains(cause: Finding, symptom: Finding) -> bool:
    """Whether one finding accounts for another: its rule says so, and they meet in an utterance where that matters.

    Information never explains anything worse.
    """
    milder = cause.severity is Severity.INFORMATION and symptom.severity is not Severity.INFORMATION
    if symptom.code not in cause.explains or milder:
        return False
    anywhere = cause.everywhere or not cause.affected or not symptom.affected
    return anywhere or bool(cause.affected & symptom.affected)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Worst severity first, then in the order in which data flows (the order of codes)."""
    return sorted(findings, key=lambda finding: (finding.severity.rank, finding.code))


def _reachable(root: Finding, findings: Sequence[Finding]) -> list[Finding]:
    found: list[Finding] = []
    frontier = [root]
    while frontier:
        cause = frontier.pop()
        new = [f for f in findings if f is not root and f not in found and explains(cause, f)]
        found += new
        frontier += new
    return found


def verdicts(findings: Sequence[Finding], healthy: Healthy = ()) -> tuple[Verdict, ...]:
    """One verdict for each root, worst first.

    Parameters
    ----------
    findings : sequence of Finding
        What the rules found in one call.
    healthy : collection of (code, explains)
        Rules that ran and found nothing; those that could explain a symptom are named as ruled out.

    Returns
    -------
    tuple of Verdict
        Empty when there are no findings. A symptom with two possible roots goes to the better ranked one.
    """
    roots = [f for f in findings if not any(explains(g, f) for g in findings if g is not f)]
    taken: list[Finding] = []
    result = []
    for root in ranked(roots):
        symptoms = [f for f in _reachable(root, findings) if f not in taken]
        taken += symptoms
        codes = {root.code, *(f.code for f in symptoms)}
        ruled_out = sorted(code for code, explained in healthy if codes & set(explained) and code not in codes)
        result.append(Verdict(root=root, also=tuple(ranked(symptoms)), ruled_out=tuple(ruled_out)))
    return tuple(result)
