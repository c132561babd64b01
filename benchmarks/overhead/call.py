"""What guarding one call of ``torch.ctc_loss`` costs, against the loss's own forward and backward.

    python benchmarks/overhead/call.py --rounds 64 --out benchmarks/overhead/call

Every round computes the same loss twice, in an order of its own: unguarded, and under a guard with all rules on and the
default budget, after the first calls, which are measured in full whatever they cost. All that the guard does at a call
is counted: what it adds to the forward pass (the backward pass is torch's own in both), divided by forward and backward
of the unguarded one of the same round. The share is the median over rounds, with a 95% bootstrap interval. It is
processor time on one thread: waiting for others is not counted, but the caches that they empty are. There is nothing
but losses in this run, so that the budget allows few looks at the scores: they are listed apart ("in a look"), and the
mean counts all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.overhead.ratios import in_turns, machine, median_with_interval  # noqa: E402 - after the path
from benchmarks.overhead.torch_arms import own_time  # noqa: E402
from ctcguard import watch  # noqa: E402
from ctcguard.clock import ALWAYS_CALLS, SELDOM_CALLS  # noqa: E402

SIZES = ((16, 100, 32), (16, 500, 32), (32, 1500, 32), (32, 400, 1024), (16, 750, 5000))
DTYPES = (torch.float32, torch.bfloat16)
FRAMES_PER_LABEL = 8


class Call:
    """One loss on a batch as trainers make it: a head in that dtype, the softmax and the loss in float32.

    Parameters
    ----------
    size : tuple of int
        Utterances, frames and classes. Input lengths are 70% of the frames or more.
    dtype : torch.dtype
        Of the head.
    labels : int, optional
        Of the longest targets; the others have half of them or more.
    """

    def __init__(self, size: tuple[int, int, int], dtype: torch.dtype, labels: int | None = None) -> None:
        utterances, frames, classes = size
        random = torch.Generator().manual_seed(0)
        room = frames // FRAMES_PER_LABEL if labels is None else labels
        self.logits = torch.randn(size, generator=random).to(dtype).requires_grad_()
        self.targets = torch.randint(1, classes, (utterances, room), generator=random)
        self.input_lengths = torch.randint(int(0.7 * frames), frames + 1, (utterances,), generator=random)
        self.target_lengths = torch.randint(room // 2, room + 1, (utterances,), generator=random)

    def log_probs(self) -> torch.Tensor:
        """(time, batch, classes), with their graph."""
        return self.logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1)

    def forward(self) -> None:
        """The loss alone."""
        F.ctc_loss(self.log_probs(), self.targets, self.input_lengths, self.target_lengths)

    def timed(self) -> tuple[float, float]:
        """Seconds of forward and of backward."""
        log_probs = self.log_probs()
        started = time.process_time()
        loss = F.ctc_loss(log_probs, self.targets, self.input_lengths, self.target_lengths)
        between = time.process_time()
        torch.autograd.grad(loss, log_probs)
        return between - started, time.process_time() - between


def measured(size: tuple[int, int, int], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    call, original = Call(size, dtype), torch.ctc_loss
    plain: list[tuple[float, float]] = []
    guarded: list[float] = []
    looked: list[bool] = []
    with watch(sinks=()) as watching:
        guard, seam = watching.guard, torch.ctc_loss
        turn = own_time(guard.clock)

        def unguarded() -> float:
            torch.ctc_loss = original
            plain.append(call.timed())
            return sum(plain[-1])

        def under_guard() -> float:
            torch.ctc_loss = seam
            with turn:
                guarded.append(call.timed()[0])
            guard.at_step(guard.step + 1)
            looked.append(not guard.brief)
            return guarded[-1]

        for _ in range(ALWAYS_CALLS + 1):
            under_guard()
        plain.clear(), guarded.clear(), looked.clear()
        in_turns({"unguarded": unguarded, "guarded": under_guard}, rounds)
        torch.ctc_loss = seam
        assert guard.findings == [], guard.findings
    added = [with_guard - forward for with_guard, (forward, _) in zip(guarded, plain, strict=True)]
    shares = [extra / sum(own) for extra, own in zip(added, plain, strict=True)]
    looks = [share for share, look in zip(shares, looked, strict=True) if look]
    return {
        "size": "×".join(map(str, size)),
        "dtype": str(dtype).removeprefix("torch."),
        "loss_ms": 1e3 * median_with_interval([sum(own) for own in plain])["median"],
        "guard_ms": 1e3 * median_with_interval(added)["median"],
        "share": median_with_interval(shares),
        "look_share": median_with_interval(looks)["median"] if looks else None,
        "mean_share": sum(shares) / len(shares),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| batch × frames × classes | head | loss, ms | guard, ms | share | 95% interval | in a look | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row["share"]
        cells = [row["size"], row["dtype"], f"{row['loss_ms']:.1f}", f"{row['guard_ms']:.2f}", f"{share['median']:.2%}"]
        cells += [
            f"{share['least']:.2%} to {share['most']:.2%}",
            "" if row["look_share"] is None else f"{row['look_share']:.2%}",
            f"{row['mean_share']:.2%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=64, help="one guarded and one unguarded call in every round")
    parser.add_argument("--sizes", nargs="*", default=["×".join(map(str, size)) for size in SIZES])
    parser.add_argument("--out", type=Path, default=None, help="write OUT.json and OUT.md too")
    options = parser.parse_args()
    command = f"python benchmarks/overhead/call.py --rounds {options.rounds}"
    if len(options.sizes) < len(SIZES):
        command += f" --sizes {' '.join(options.sizes)}"
    torch.set_num_threads(1)
    before = machine()
    wanted = [size for size in SIZES if "×".join(map(str, size)) in options.sizes]
    rows: list[dict[str, Any]] = []
    for size in wanted:
        for dtype in DTYPES:
            rows.append(measured(size, dtype, max(2 * SELDOM_CALLS, options.rounds)))
            print(table(rows).splitlines()[-1], flush=True)
            if options.out:
                write(options.out, rows, {"command": command, "load_before": before["load"], **machine()})


def write(path: Path, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """The rows so far, as JSON and as Markdown."""
    path.with_suffix(".json").write_text(json.dumps({"rows": rows, **about}, indent=2) + "\n")
    loads = f"load {about['load_before'][0]} to {about['load'][0]}"
    note = f"`{about['command']}`: {about['machine']}, torch {torch.__version__}, {loads}\n"
    path.with_suffix(".md").write_text(f"{table(rows)}\n{note}")


if __name__ == "__main__":
    main()
