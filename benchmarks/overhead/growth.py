"""How the time of the loss and that of its guard grow with the batch, the frames, the classes and the labels.

    python benchmarks/overhead/growth.py --rounds 40        writes growth.json, growth.md and growth.svg

As in call.py, a loss is computed again and again, in turns: unguarded, with a guard that only glimpses at it, and with
one that looks at its scores. The guard's time is what it adds to the forward pass, the loss's that of forward and
backward: medians of processor time on one thread. Of the four sizes one varies, the others stay at BASE. The exponent
is the slope of a straight line through the upper half of the points, where axes are logarithmic: 1 for a time that
doubles with the size. The picture is drawn by plotly in chromium, as those of docs/pictures.py are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1])]

from benchmarks.overhead.call import Call  # noqa: E402 - after the path
from benchmarks.overhead.ratios import in_turns, machine  # noqa: E402
from benchmarks.overhead.torch_arms import seam_of  # noqa: E402
from ctcguard import watch  # noqa: E402
from ctcguard.clock import ALWAYS_CALLS, SELDOM_CALLS  # noqa: E402

JSON, PAGE, PICTURE = HERE / "growth.json", HERE / "growth.md", HERE / "growth.svg"
ROUNDS = 40
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOSS = "the loss, forward and backward"
GUARDS = {"guard, a look at the scores": None, "guard, a glimpse": 1e-9}
"""By name, the budget: none measures everything at every call, one that is spent only what is never thinned."""
COLOURS = {LOSS: "#888888", **dict(zip(GUARDS, ("#d1495b", "#00798c"), strict=True))}
SVG = """async figure => {
  const place = document.body.appendChild(document.createElement('div'));
  await Plotly.newPlot(place, figure.data, figure.layout);
  return Plotly.toImage(place, {format: 'svg', width: 1000, height: 640});
}"""


class Size(NamedTuple):
    """Of one call."""

    batch: int
    frames: int
    classes: int
    labels: int


BASE = Size(batch=8, frames=400, classes=64, labels=40)
GROWING: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "frames": (100, 200, 400, 800, 1600, 3200),
    "classes": (8, 32, 128, 512, 2048, 8192),
    "labels": (5, 10, 20, 40, 80, 160),
}


def measured(size: Size, rounds: int) -> dict[str, float]:
    """Milliseconds of the loss and of each guard at one size."""
    call = Call(size[:3], torch.float32, size.labels)
    small = Call((2, 40, size.classes), torch.float32, 4)
    arms: dict[str, Callable[[], float | None]] = {}
    guards = []
    for name, budget in GUARDS.items():
        watching = watch(sinks=(), budget=budget)
        guards.append(watching)
        seeing = seam_of(watching)

        def forward(
            given: Call = call, watching: Any = watching, seeing: Any = seeing, brief: bool = budget is not None
        ) -> float | None:
            with seeing():
                took = given.timed()[0]
            watching.guard.at_step(watching.guard.step + 1)
            return took if watching.guard.brief == brief else None

        for _ in range(ALWAYS_CALLS + 1):
            forward(small)
        arms[name] = forward
    plain: list[tuple[float, float]] = []

    def unguarded() -> float:
        plain.append(call.timed())
        return sum(plain[-1])

    took = in_turns({LOSS: unguarded, **arms}, rounds, warm_up=1)
    for watching in guards:
        watching.close()
        assert watching.findings == [], watching.findings
    found = {LOSS: float(np.median(took[LOSS]))}
    for name in GUARDS:
        pairs = zip(took[name], plain[1:], strict=True)
        found[name] = float(np.median([guarded - own for guarded, (own, _) in pairs if guarded is not None]))
    return {name: round(1e3 * seconds, 4) for name, seconds in found.items()}


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """The slope through the upper half of the points, both axes logarithmic."""
    half = len(sizes) // 2
    return round(float(np.polyfit(np.log(sizes[half:]), np.log(np.maximum(times[half:], 1e-4)), 1)[0]), 2)


def figure(content: Mapping[str, Any]) -> Any:
    """Four panels with shared times."""
    from plotly.subplots import make_subplots

    drawn = make_subplots(rows=2, cols=2, shared_yaxes="all", vertical_spacing=0.14, horizontal_spacing=0.04)
    for number, (axis, panel) in enumerate(content["panels"].items()):
        row, column = number // 2 + 1, number % 2 + 1
        for name, colour in COLOURS.items():
            line = {"x": panel["sizes"], "y": panel["ms"][name], "name": name, "line": {"color": colour}}
            drawn.add_scatter(**line, row=row, col=column, legendgroup=name, showlegend=not number)
        drawn.update_xaxes(type="log", title=axis, tickvals=panel["sizes"], row=row, col=column)
    drawn.update_yaxes(type="log", dtick=1, exponentformat="none")
    drawn.update_yaxes(title="milliseconds a call", col=1)
    drawn.update_layout(
        template="plotly_white", legend={"orientation": "h", "y": 1.08}, margin={"l": 70, "r": 20, "t": 60, "b": 50}
    )
    return drawn


def draw(content: Mapping[str, Any]) -> None:
    """Write the picture."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        raise SystemExit(f"the picture needs one of {', '.join(BROWSERS)}; the figures are in {JSON.name}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        page.add_script_tag(content=get_plotlyjs())
        address = page.evaluate(SVG, json.loads(figure(content).to_json()))
        browser.close()
    PICTURE.write_text(unquote(address.partition(",")[2]) + "\n", encoding="utf-8")


def page(content: Mapping[str, Any]) -> str:
    """The picture, the exponents and the times as Markdown."""
    lines = [
        "# How the cost of a call grows", "",
        f"Written by `{content['command']}` on {content['machine']}, one thread.",
        f"Where it does not vary: {content['base']}.", "",
        f"![Milliseconds against batch, frames, classes and labels, logarithmic]({PICTURE.name})", "",
    ]  # fmt: skip
    for axis, panel in content["panels"].items():
        lines += [
            f"## {axis.capitalize()}",
            "",
            f"| milliseconds | {' | '.join(map(str, panel['sizes']))} | exponent |",
        ]
        lines += ["| --- " + "| --: " * (len(panel["sizes"]) + 1) + "|"]
        for name, times in panel["ms"].items():
            cells = [*(f"{time:.3g}" for time in times), f"{panel['exponents'][name]:.2f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="one call of each arm in every round")
    parser.add_argument("--draw", action="store_true", help="measure nothing; draw what growth.json holds")
    options = parser.parse_args()
    if options.draw:
        content = json.loads(JSON.read_text())
        draw(content)
        PAGE.write_text(page(content), encoding="utf-8")
        return
    torch.set_num_threads(1)
    panels: dict[str, Any] = {}
    for axis, sizes in GROWING.items():
        rows = []
        for size in sizes:
            rows.append(measured(BASE._replace(**{axis: size}), max(SELDOM_CALLS, options.rounds)))
            print(f"{axis} {size}: {rows[-1]}", flush=True)
        times = {name: [row[name] for row in rows] for name in COLOURS}
        exponents = {name: exponent(sizes, each) for name, each in times.items()}
        panels[axis] = {"sizes": sizes, "ms": times, "exponents": exponents}
    content = {
        "command": f"python benchmarks/overhead/growth.py --rounds {options.rounds}",
        **machine(),
        "torch": torch.__version__,
        "base": ", ".join(f"{name} {number}" for name, number in BASE._asdict().items()),
        "panels": panels,
    }
    JSON.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")
    draw(content)


if __name__ == "__main__":
    main()
