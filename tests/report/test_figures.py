"""The figures: every number on the page is that of the run."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np
import plotly.graph_objects
import pytest

from ctcguard.record import read
from ctcguard.replay import utterances
from ctcguard.report.figures import (
    CLASSES_SHOWN,
    HIGHEST,
    LEVELS,
    LOWEST,
    NO_NUMBER,
    packed,
    posteriorgram,
    thinned,
    timeline,
)
from ctcguard.report.story import read_story


def unpacked(text: str, rows: int) -> np.ndarray:
    """Probabilities, as the page reads them."""
    levels = np.frombuffer(base64.b64decode(text), "<u2").reshape(rows, -1).astype(float)
    found = np.where(levels == 0, 0, np.exp(LOWEST + (HIGHEST - LOWEST) * levels / LEVELS))
    return np.where(levels == NO_NUMBER, np.nan, found)


def test_probabilities_are_packed_to_a_part_in_a_thousand() -> None:
    log_probs = np.linspace(-24, 14, 999).reshape(3, 333)
    np.testing.assert_allclose(unpacked(packed(log_probs), 3), np.exp(log_probs), rtol=1e-3)


def test_what_is_no_number_stays_none() -> None:
    found = unpacked(packed(np.asarray([[-np.inf, np.nan, np.inf, -900.0]])), 1)[0]
    assert found[0] == found[3] == 0
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(math.exp(HIGHEST))


@pytest.mark.parametrize("count", [1, 2, 10, 11, 100, 1000, 12_345])
def test_a_thinned_curve_keeps_ends_and_extremes(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    values[count // 2] = 99
    values[count // 3] = -99
    kept = thinned(values.tolist(), 10)
    assert len(kept) <= 10
    assert kept == sorted(set(kept))
    assert {0, count - 1, count // 2, count // 3} <= set(kept)


def test_a_curve_of_nothing_finite_is_thinned_too() -> None:
    assert thinned([math.nan] * 50, 10) == [0, 49]


def test_the_timeline_is_one_that_plotly_knows(broken: Path) -> None:
    found = timeline(read_story(broken))
    assert found is not None
    plotly.graph_objects.Figure(data=found["data"], layout=found["layout"])
    axes = [name for name in found["layout"] if name.startswith("yaxis")]
    assert len(axes) == len(found["titles"]) == 6
    assert {trace.get("xaxis", "x") for trace in found["data"]} == {"x"}, "all curves move together"


def test_a_run_of_nothing_has_no_timeline(tmp_path: Path) -> None:
    (tmp_path / "findings.jsonl").write_text('{"type": "end"}\n', encoding="utf-8")
    assert timeline(read_story(tmp_path)) is None


def test_values_that_are_not_finite_are_crosses(tmp_path: Path) -> None:
    lines = ['{"step": 0, "loss_max_nats": 2.0}', '{"step": 1, "loss_max_nats": "NaN"}']
    (tmp_path / "readings.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = timeline(read_story(tmp_path))
    assert found is not None
    curve, crosses = found["data"][1:]
    assert curve["y"] == [2.0, None]
    assert (crosses["x"], crosses["text"], crosses["meta"]) == ([1], ["nan"], "lost")


def test_the_posteriorgram_shows_the_scores_of_the_record(broken: Path) -> None:
    record = read(broken / "6-CTC402.safetensors")
    roots = [verdict.root for verdict in record.verdicts]
    seen = list(utterances(record, roots))[1]
    found = posteriorgram(record, seen, roots)
    assert record.scores is not None
    given = record.scores[1, :28].T.astype(float)
    assert found["frames"] == 28
    assert [view["title"] for view in found["views"]] == ["as the loss took it", "after log_softmax instead of softmax"]
    np.testing.assert_allclose(unpacked(found["views"][0]["data"], 10), np.exp(given), rtol=1e-3)
    np.testing.assert_allclose(unpacked(found["views"][1]["data"], 10), given, rtol=1e-3)
    assert seen.best is not None
    assert found["path"] == seen.best.path.tolist()
    assert found["classes"][0] == [0, "&lt;pad&gt;", "<pad>"]
    assert found["left_out"] == []


def test_of_many_classes_those_that_matter_are_drawn() -> None:
    import torch

    from ctcguard import watch

    torch.manual_seed(0)
    with watch(run_dir="run", on_error="log") as guard:
        guard.record()
        scores = torch.randn(50, 1, 300, requires_grad=True).log_softmax(-1)
        torch.nn.functional.ctc_loss(scores, torch.tensor([[250, 7, 299]]), (50,), (3,))
    (path,) = Path("run").glob("*.safetensors")
    record = read(path)
    (seen,) = utterances(record, [])
    found = posteriorgram(record, seen, [])
    drawn = [index for index, *_ in found["classes"]]
    assert len(drawn) == CLASSES_SHOWN
    assert {0, 7, 250, 299} <= set(drawn)
    assert found["left_out"] == ["252 of 300 classes that say little here are not drawn"]
    assert seen.best is not None
    assert [drawn[row] for row in found["path"]] == seen.best.path.tolist()
