"""The figures of a report as JSON of Plotly: readings over steps, and posteriorgrams. Colours are the page's."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ctcguard._array import HostArray, quiet
from ctcguard.finding import Finding, Severity
from ctcguard.record import Record
from ctcguard.repairs import repaired
from ctcguard.replay import Seen
from ctcguard.report.story import Story
from ctcguard.report.words import cut, finite, label, symbol

POINTS = 1500
"""Points of a curve; of more, the lowest and the highest of each stretch."""
MARKED_FINDINGS, MARKED_STEPS = 1000, 50
FRAMES_SHOWN, CLASSES_SHOWN = 2000, 48
LOWEST, HIGHEST, LEVELS, NO_NUMBER = -25.0, 15.0, 65534, 65535
"""How probabilities are packed: 16 bits for ln p between two limits, and one value for NaN."""
PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("loss in nats", (("loss_max_nats", "largest"), ("loss_median_nats", "median"), ("loss_min_nats", "smallest"))),
    ("largest log-prob in nats (must not be above 0)", (("log_prob_max", "largest log-prob"),)),
    ("largest |logsumexp| of a frame in nats (must be 0)", (("logsumexp_abs_max", "largest |logsumexp|"),)),
    (
        "share of",
        (("blank_fraction", "frames won by the blank"), ("infeasible_fraction", "utterances with too few frames")),
    ),
    ("share of the time that the guard took", (("overhead_fraction", "time of the guard"),)),
)
"""Panels from top to bottom: a title, and each curve with its name."""
PANEL_PX, TRACK_PX, GAP_PX = 96, 62, 36


def timeline(story: Story) -> dict[str, Any] | None:
    """Findings over steps, above the readings: one axis of steps for all.

    Returns
    -------
    dict or None
        ``data`` and ``layout``; ``titles``, one a panel with the names of its curves, in the order of their colours;
        None when there is nothing to draw. ``meta`` of a trace says which colour it has.
    """
    known = {name for row in story.rows for name, value in row.items() if isinstance(value, float)}
    panels = [(title, curves) for title, curves in PANELS if known & {name for name, _ in curves}]
    if not panels and not story.findings:
        return None
    heights = [TRACK_PX, *(PANEL_PX for _ in panels)]
    total = sum(heights) + GAP_PX * (len(heights) - 1)
    axes: dict[str, dict[str, Any]] = {}
    traces, top = [_track(story.findings)], total
    for number, height in enumerate(heights):
        name = f"yaxis{number + 1 if number else ''}"
        axes[name] = {"domain": [max(0.0, (top - height) / total), top / total]}
        top -= height + GAP_PX
    axes["yaxis"] |= {"tickvals": [0, 1, 2], "ticktext": ["info", "warning", "error"], "range": [-0.6, 2.6]}
    for number, (_, curves) in enumerate(panels, start=2):
        axes[f"yaxis{number}"] |= {"rangemode": "tozero", "nticks": 4, "zeroline": True}
        traces += [trace for i, curve in enumerate(curves) for trace in _curves(story.rows, *curve, i, f"y{number}")]
    steps = sorted({verdict.step for verdict in story.verdicts})[:MARKED_STEPS]
    shapes = [{"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1} for x in steps]
    xaxis = {
        "title": {"text": "step"},
        "anchor": f"y{len(heights)}" if panels else "y",
        "tickformat": ",d",
        "nticks": 8,
    }
    layout = {"height": total + 90, "xaxis": xaxis, **axes, "shapes": shapes, "hovermode": "x unified"}
    titles = [["findings", []], *([title, [name for _, name in curves]] for title, curves in panels)]
    return {"data": traces, "layout": layout | {"hoversubplots": "axis", "showlegend": False}, "titles": titles}


def _track(findings: Sequence[Finding]) -> dict[str, Any]:
    shown = findings[:MARKED_FINDINGS]
    rows = {Severity.INFORMATION: 0, Severity.WARNING: 1, Severity.ERROR: 2}
    texts = [f"{finding.code} {finding.name}: {cut(finding.message, 120)}" for finding in shown]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "finding",
        "x": [finding.step for finding in shown],
        "y": [rows[finding.severity] for finding in shown],
        "text": [label(text) for text in texts],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 10, "symbol": "circle"},
        "meta": "findings",
        "yaxis": "y",
    }


def _curves(rows: Sequence[dict[str, Any]], name: str, title: str, number: int, axis: str) -> list[dict[str, Any]]:
    """A curve, and crosses where its value was no finite number."""
    steps = [row["step"] for row in rows if isinstance(row.get(name), int | float)]
    values = [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
    if not values:
        return []
    common = {"type": "scatter", "xaxis": "x", "yaxis": axis, "meta": f"curve{number}"}
    kept = thinned(values, POINTS)
    shown = [finite(values[i]) for i in kept]
    mode = "lines+markers" if len(kept) <= 60 else "lines"
    curve = {"mode": mode, "name": title, "x": [steps[i] for i in kept], "y": shown, "connectgaps": False}
    curve |= {"hovertemplate": title + " %{y:.4g}<extra></extra>", "marker": {"size": 5}}
    lost = [i for i, value in enumerate(values) if not math.isfinite(value)][:POINTS]
    if not lost:
        return [common | curve]
    height = max((value for value in shown if value is not None), default=1.0)
    crosses = {
        "mode": "markers",
        "name": f"{title}: not finite",
        "x": [steps[i] for i in lost],
        "y": [height] * len(lost),
    }
    crosses |= {"text": [str(values[i]) for i in lost], "hovertemplate": title + " %{text}<extra></extra>"}
    return [common | curve, common | crosses | {"marker": {"symbol": "x", "size": 9}, "meta": "lost"}]


def thinned(values: Sequence[float], points: int) -> list[int]:
    """Indices of a curve that looks the same: the lowest and the highest of each stretch, and both ends.

    Parameters
    ----------
    values : sequence of float
        NaN and infinities too.
    points : int
        How many indices at most, at least 4.

    Returns
    -------
    list of int
        Ascending; all of them when there are few enough.

    Examples
    --------
    >>> thinned([0, 0, 9, 0, 0, 0, -9, 0, 0, 0], 6)
    [0, 2, 5, 6, 9]
    """
    count = len(values)
    if count <= points:
        return list(range(count))
    array = np.asarray(values, dtype=np.float64)
    finite_only = np.where(np.isfinite(array), array, np.nan)
    kept = {0, count - 1}
    for stretch in np.array_split(np.arange(count), max(1, points // 2 - 1)):
        part = finite_only[stretch]
        if not np.isnan(part).all():
            kept |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
    return sorted(kept)


def posteriorgram(record: Record, seen: Seen, findings: Iterable[Finding]) -> dict[str, Any]:
    """The probabilities of an utterance, packed for the page, with its best alignment.

    Parameters
    ----------
    record : Record
        Whose vocabulary names the classes.
    seen : Seen
        The utterance.
    findings : iterable of Finding
        Whose fixes show what the model itself said, where they change the scores.

    Returns
    -------
    dict
        ``classes`` (index and symbol of each row), ``frames``, ``views`` (title, base64 of little-endian uint16, row
        after row), ``path`` (row of the best alignment in each frame) or None, and what was ``left_out``.
    """
    took = seen.took
    frames = int(np.clip(took.frames, 0, min(FRAMES_SHOWN, len(took.log_probs))))
    classes = _classes(seen, frames)
    of_loss = "as the loss took it"
    views = [(of_loss, took.log_probs)]
    if not seen.obstacle:
        for words, right in repaired(findings, took):
            if right.log_probs is not took.log_probs:
                views.append((words, right.log_probs))
    place = {index: row for row, index in enumerate(classes)}
    path = None if seen.best is None else [place.get(int(index)) for index in seen.best.path[:frames]]
    names = [_name(record, index) for index in classes]
    said = [f"only the first {frames:,} of {took.frames:,} frames are drawn"] if took.frames > frames else []
    hidden = took.log_probs.shape[1] - len(classes)
    said += [f"{hidden:,} of {took.log_probs.shape[1]:,} classes that say little here are not drawn"] if hidden else []
    return {
        "frames": frames,
        "classes": [[index, label(name), name] for index, name in zip(classes, names, strict=True)],
        "blank": place.get(took.blank),
        "views": [{"title": title, "data": packed(log_probs[:frames, classes].T)} for title, log_probs in views],
        "scale": [LOWEST, HIGHEST, LEVELS],
        "path": path or None,
        "left_out": said,
    }


def _classes(seen: Seen, frames: int) -> list[int]:
    """All classes, or, of many, the blank, those of the target and of the decoding, and those that reach most."""
    width = seen.took.log_probs.shape[1]
    if width <= CLASSES_SHOWN:
        return list(range(width))
    wanted = [seen.took.blank, *seen.labels, *seen.decoded]
    valid = seen.took.log_probs[:frames]
    reached = np.nan_to_num(valid, nan=-np.inf).max(axis=0) if frames else np.zeros(width)
    wanted += np.argsort(-reached, kind="stable").tolist()
    legal = [index for index in dict.fromkeys(wanted) if 0 <= index < width]
    return sorted(legal[:CLASSES_SHOWN])


def _name(record: Record, index: int) -> str:
    known = None if record.vocabulary is None else record.vocabulary.symbol(index)
    if known:
        return symbol(known)
    return "blank" if index == record.readings["blank"] else str(index)


def packed(log_probs: HostArray) -> str:
    """Log-probs as base64 of 16 bits each: their relative error is 0.03 %.

    Examples
    --------
    >>> import numpy as np
    >>> base64.b64decode(packed(np.asarray([[-np.inf, np.nan]]))).hex(" ", 2)
    '0000 ffff'
    """
    with quiet():
        share = (np.clip(log_probs, LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
        levels = np.where(np.isnan(log_probs), NO_NUMBER, np.round(share * LEVELS)).astype("<u2")
    return base64.b64encode(np.ascontiguousarray(levels).tobytes()).decode("ascii")
