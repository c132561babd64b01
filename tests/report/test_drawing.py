"""The drawing: the guilty step is marked, and no other."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ctcguard.finding import Finding, Severity
from ctcguard.provenance import Provenance, Step
from ctcguard.report.drawing import WIDTH, Box, chain, drawing, inputs


def made(*ops: str) -> Provenance:
    steps = (Step(op, axis=2 if "softmax" in op else None, class_axis=2, shape=(2, 9, 5)) for op in ops)
    return Provenance(tuple(steps), reaches_head=True)


def root(code: str, cause: str = "x") -> Finding:
    return Finding(code=code, name="n", severity=Severity.ERROR, cause=cause, message="m", fix="f")


@pytest.mark.parametrize(
    ("ops", "code", "cause", "marked"),
    [
        (("linear", "softmax"), "CTC402", "probabilities", ["softmax axis 2"]),
        (("linear", "softmax", "transpose"), "CTC402", "wrong-axis", ["softmax axis 2"]),
        (("linear",), "CTC402", "raw-logits", ["log_softmax is missing"]),
        ((), "CTC402", "raw-logits", ["log_softmax is missing"]),
        (("linear", "log_softmax", "divide", "transpose"), "CTC402", "altered-after-softmax", ["divide"]),
        (("linear", "softmax", "log"), "CTC403", "log-of-softmax", ["log"]),
        (("linear", "softmax", "log_softmax"), "CTC404", "softmax-before-log-softmax", ["softmax axis 2"]),
        (("linear", "softmax"), "CTC404", "softmax-before-loss", ["softmax axis 2"]),
        (("linear", "log_softmax"), "CTC101", "missing-classes", ["model"]),
        (("linear", "log_softmax"), "CTC701", "stuck", ["model"]),
        (("linear", "log_softmax"), "CTC505", "differs", ["ctc_loss"]),
        (("linear", "log_softmax"), "CTC301", "too-short", []),
        (("linear",), "CTC401", "positive", ["linear"]),
    ],
)
def test_the_guilty_step_is_marked(ops: tuple[str, ...], code: str, cause: str, marked: list[str]) -> None:
    boxes = chain(made(*ops), [root(code, cause)], "ctc_loss")
    assert [box.text for box in boxes if box.guilty] == marked
    assert [box.text for box in boxes if not box.missing][1:-1] == [str(step) for step in made(*ops).steps]


@pytest.mark.parametrize(
    ("code", "marked"),
    [
        ("CTC201", ["targets"]),
        ("CTC207", ["targets", "target lengths"]),
        ("CTC301", ["input lengths"]),
        ("CTC303", ["target lengths"]),
        ("CTC402", []),
    ],
)
def test_the_guilty_input_is_marked(code: str, marked: list[str]) -> None:
    assert [box.text for box in inputs([root(code)]) if box.guilty] == marked


@pytest.mark.parametrize("count", [1, 3, 9, 40])
def test_it_is_well_formed_and_stays_inside(count: int) -> None:
    boxes = [Box(f"<step> & {i}", guilty=i == 0) for i in range(count)]
    picture = ElementTree.fromstring(drawing(boxes, inputs([root("CTC201")])))
    assert picture.attrib["aria-label"].startswith("<step> & 0 (here)")
    assert "wrong: targets" in picture.attrib["aria-label"]
    *_, width, height = map(float, picture.attrib["viewBox"].split())
    rectangles = list(picture.iter("rect"))
    assert len(rectangles) == count + 3
    for rectangle in rectangles:
        x, y, w, h = (float(rectangle.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + w <= width == WIDTH + 8
        assert y + h <= height
