"""How the scores came to be, as a small drawing: from the head to the loss, the guilty step marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from ctcguard.finding import Finding
from ctcguard.provenance import Provenance
from ctcguard.report.words import cut

BOX, GAP, HEIGHT, WIDTH, LETTER = 34, 24, 68, 960, 7.3
OF_MODEL, OF_LOSS = frozenset({"CTC1", "CTC7", "CTC8"}), frozenset({"CTC5", "CTC6"})
"""Families of rules that are about the model, and about what the loss returned."""
INPUTS = ("targets", "target lengths", "input lengths")


@dataclass(frozen=True)
class Box:
    """One step: what it is called, whether it is guilty, and whether it is there at all."""

    text: str
    guilty: bool = False
    missing: bool = False

    @property
    def width(self) -> float:
        """In pixels."""
        return max(56.0, LETTER * len(self.text) + 20)


ABSENT = Box("log_softmax is missing", guilty=True, missing=True)


def chain(made: Provenance, findings: Iterable[Finding], loss: str) -> list[Box]:
    """The steps that led to the loss, with those marked that the findings are about.

    Parameters
    ----------
    made : Provenance
        Empty when nothing is known.
    findings : iterable of Finding
        Root causes.
    loss : str
        The function that was called.
    """
    wrong = list(findings)
    families = {finding.code[:4] for finding in wrong}
    of_scores = [finding for finding in wrong if finding.code.startswith("CTC4")]
    guilty = {index for finding in of_scores for index in _guilty(made, finding)}
    steps = [Box(cut(str(step), 40), guilty=index in guilty) for index, step in enumerate(made.steps)]
    head = "model" if steps else "model (its last steps are not known)"
    absent = [ABSENT for finding in of_scores if finding.cause == "raw-logits"][:1]
    return [Box(head, bool(families & OF_MODEL)), *steps, *absent, Box(loss or "loss", bool(families & OF_LOSS))]


def inputs(findings: Iterable[Finding]) -> list[Box]:
    """What else the loss is given, with that marked which the findings are about."""
    codes = {finding.code for finding in findings}
    lengths = {"CTC301", "CTC302", "CTC304", "CTC305"}
    wrong = {
        "targets": any(code.startswith("CTC2") for code in codes),
        "target lengths": bool(codes & {"CTC207", "CTC303"}),
        "input lengths": bool(codes & lengths),
    }
    return [Box(name, guilty=wrong[name]) for name in INPUTS]


def _guilty(made: Provenance, finding: Finding) -> set[int]:
    """Indices of the steps that a finding about scores is about; the last step where nothing better is known."""
    softmaxes = [index for index, step in enumerate(made.steps) if step.op in ("softmax", "log_softmax")]
    after = [made.steps.index(step) for step in made.after_softmax()]
    known = {
        "raw-logits": [],
        "altered-after-softmax": after,
        "masking": after,
        "log-of-softmax": [index for index, step in enumerate(made.steps) if step.op == "log"],
        "softmax-before-log-softmax": softmaxes[:-1],
    }
    found = known.get(finding.cause, softmaxes[-1:])
    return set(found or (range(len(made.steps))[-1:] if finding.cause != "raw-logits" else ()))


def drawing(boxes: list[Box], others: list[Box]) -> str:
    """An inline SVG; its text is what a screen reader says.

    Parameters
    ----------
    boxes : list of Box
        From the model to the loss.
    others : list of Box
        The other inputs of the loss.
    """
    parts: list[str] = []
    x, y = 4.0, 20.0
    last: tuple[float, float] | None = None
    for box in boxes:
        if last is not None and x + box.width > WIDTH:
            x, y = 4.0, y + HEIGHT
        if last is not None:
            parts.append(_arrow(last, (x, y + BOX / 2)))
        parts.append(_box(box, x, y))
        last = (x + box.width, y + BOX / 2)
        x += box.width + GAP
    end = boxes[-1]
    middle, bottom = last[0] - end.width / 2 if last else 0.0, y + BOX
    row = bottom + 40
    total = sum(box.width for box in others) + GAP * (len(others) - 1)
    x = min(max(4.0, middle - total / 2), WIDTH - total)
    for box in others:
        parts.append(_arrow((x + box.width / 2, row), (middle, bottom + 2), "wrong" if box.guilty else ""))
        parts.append(_box(box, x, row))
        x += box.width + GAP
    said = escape(_said(boxes, others))
    size = f'viewBox="0 0 {WIDTH + 8} {row + BOX + 6:.0f}"'
    return f'<svg class="made" role="img" aria-label="{said}" {size}><title>{said}</title>{"".join(parts)}</svg>'


def _said(boxes: list[Box], others: list[Box]) -> str:
    way = " → ".join(box.text + (" (here)" if box.guilty else "") for box in boxes)
    wrong = [box.text for box in others if box.guilty]
    return way + (f"; wrong: {', '.join(wrong)}" if wrong else "")


def _box(box: Box, x: float, y: float) -> str:
    kind = " ".join(name for name, given in (("wrong", box.guilty), ("missing", box.missing)) if given)
    mark = f'<text class="mark" x="{x + box.width / 2:.1f}" y="{y - 5:.1f}">here</text>' if box.guilty else ""
    return (
        f'<g class="{kind}"><rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{BOX}" rx="6"/>'
        f'<text x="{x + box.width / 2:.1f}" y="{y + BOX / 2 + 4.5:.1f}">{escape(box.text)}</text>{mark}</g>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], kind: str = "") -> str:
    (x0, y0), (x1, y1) = start, end
    if y0 == y1 or x1 > x0 + 8 or y1 < y0:
        way = f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
    else:  # on to the next row
        between = (y0 + y1) / 2
        way = f"M{x0:.1f} {y0:.1f}h10V{between:.1f}H{max(1.0, x1 - 3):.1f}V{y1:.1f}H{x1:.1f}"
    return f'<path class="arrow {kind}" d="{way}"/>'
