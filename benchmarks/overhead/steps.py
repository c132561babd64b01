"""What a training step costs with each tool: with and without it in turns, step by step, in one process.

    python benchmarks/overhead/steps.py                      all trainings; writes steps.json and steps.md
    python benchmarks/overhead/steps.py --only wav2vec2      one training anew
    python benchmarks/overhead/steps.py --peers build/detection/bin/python
                                                             torch-audit and TrainCheck too, by the interpreter that
                                                             benchmarks/detection/run.py makes

The figure of a tool is the median over rounds of the time of its step divided by that of the unguarded step of the
same round, with a 95% bootstrap interval of the median. Where a tool can be taken off between two steps, both are
steps of the same training; else of two equal ones, and "unguarded again" shows by how much two equal ones differ:
where in memory one happens to be counts. Only those two arms take turns, as more of them would push each other out of
the caches, and several processes share the rounds. The mean is that of the tool's times divided by that of the
unguarded ones: it has the rare dear steps in it. Other tools have a quarter of the rounds. TrainCheck instruments all
of torch, so that it has a process of its own, which takes its steps in turn. A tool that cannot run has its error in
the table. One thread computes, so that neighbours on the machine are not measured too. The clock of a guard stands
still while it is the turn of the other arm, so that its budget is that of a run of its own; the row without a budget
thins nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "integrations")]

from benchmarks.overhead.ratios import Pair, Took, in_turns, machine, said, to_base  # noqa: E402 - after the path

JSON, PAGE = HERE / "steps.json", HERE / "steps.md"
ROUNDS, PROCESSES = 360, 4
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
"""Of the processes that measure."""
PACKAGES = ("torch", "transformers", "jax", "optax", "flax", "torch-audit", "traincheck")
Pairs = Iterator[tuple[str, Callable[[], Pair]]]


def cnn_bilstm() -> Pairs:
    from benchmarks.overhead import torch_arms, torch_loops

    return torch_arms.in_a_loop(torch_loops.cnn_bilstm)


def wav2vec2() -> Pairs:
    from benchmarks.overhead import torch_arms, torch_loops

    return torch_arms.in_a_loop(torch_loops.wav2vec2)


def trainer() -> Pairs:
    from benchmarks.overhead import torch_arms

    return torch_arms.in_the_trainer()


def flax() -> Pairs:
    from benchmarks.overhead import jax_arms

    return jax_arms.in_flax()


TRAININGS: dict[str, tuple[str, Callable[[], Pairs]]] = {
    "trainer": ("the demo's Wav2Vec2-BERT in the HF Trainer, 16 utterances", trainer),
    "cnn-bilstm": ("a CNN-BiLSTM in a plain loop, 32 × 250 × 32", cnn_bilstm),
    "wav2vec2": ("a tiny Wav2Vec2 on raw audio in a plain loop, 16 × 99 × 32", wav2vec2),
    "flax": ("a CNN-BiLSTM in Flax nnx with optax, jit, 32 × 250 × 32", flax),
}
LOOPS = ("cnn-bilstm", "wav2vec2")
"""What the peers can be attached to."""


def tried(make: Callable[[], Pair]) -> Pair | str:
    """A pair whose tool has taken its first step; else what went wrong, to be written down."""
    try:
        pair = make()
        pair[1]()
    except Exception as error:  # noqa: BLE001 - a tool of others
        return f"{type(error).__name__}: {error}"
    return pair


def taken(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """What the pairs of one training took in this process, or what keeps a tool from running."""
    pairs = list(TRAININGS[name][1]())
    found: dict[str, Any] = {}
    for index in np.random.default_rng(seed).permutation(len(pairs)):
        tool, make = pairs[index]
        ours = tool.startswith(("unguarded", "ctcguard"))
        pair = make() if ours else tried(make)
        if isinstance(pair, str):
            found[tool] = pair
            continue
        without, under = pair
        took = in_turns({"without": without, "with": under}, *((rounds, 40) if ours else (rounds // 4, 5)), seed)
        found[tool] = took["without"], took["with"]
    return {"taken": {tool: found[tool] for tool, _ in pairs}, "versions": versions()}


def measure(name: str, rounds: int, processes: int, python: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures of all tools in one training, from several processes, and what is installed there."""
    command = [python, __file__, "--only", name, "--rounds", str(rounds // processes), "--bare"]
    pooled: dict[str, tuple[list[Took], list[Took]]] = {}
    figures: dict[str, Any] = {}
    for seed in range(processes):
        printed = subprocess.run(
            [*command, str(seed)], check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
        ).stdout
        found = json.loads(printed.splitlines()[-1])
        for tool, took in found["taken"].items():
            if isinstance(took, str):
                figures[tool] = {"error": took}
                continue
            for times, more in zip(pooled.setdefault(tool, ([], [])), took, strict=True):
                times.extend(Took(*each) for each in more)
            figures[tool] = to_base(*pooled[tool])
    print(f"{TRAININGS[name][0]}: {figures['unguarded again']['ms']} ms a step", flush=True)
    for tool, row in figures.items():
        print(f"  {tool:<30} {row.get('error') or said(row['clock'])}", flush=True)
    return figures, found["versions"]


def versions() -> dict[str, str]:
    """Of what is installed here."""
    known = {}
    for package in PACKAGES:
        try:
            known[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return known


def shown(ratio: Mapping[str, float]) -> tuple[str, str]:
    """The median and its interval."""
    return f"{ratio['median']:.3f}", f"{ratio['least']:.3f} – {ratio['most']:.3f}"


def page(content: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# What a training step costs", "",
        "Time of a step with each tool divided by the time without, taken in turns in one process: the median of",
        "the ratios, and its 95% interval; what that adds to a step of this training is the last column.",
        f"Written by `{content['command']}` on {content['machine']}, one thread.", "",
    ]  # fmt: skip
    for name, (title, _) in TRAININGS.items():
        if name not in content["trainings"]:
            continue
        arms = content["trainings"][name]
        lines += [f"## {title[0].upper()}{title[1:]}: {arms['unguarded again']['ms']:g} ms", ""]
        lines += ["| tool | time | 95% | mean | processor time | 95% | added |"]
        lines += ["| --- | --: | --: | --: | --: | --: | --: |"]
        for arm, found in arms.items():
            if arm == "title":
                continue
            if "error" in found:
                lines.append(f"| {arm} | cannot: {found['error'].replace('|', '/')} | | | | | |")
                continue
            added_ms = (found["clock"]["median"] - 1) * found["ms"]
            cells = [*shown(found["clock"]), f"{found['mean']:.3f}", *shown(found["processor"]), f"{added_ms:.2f} ms"]
            lines.append(f"| {' | '.join((arm, *cells))} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*TRAININGS], action="append", default=None)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="one step without and one with the tool in each")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="that share the rounds, one after the other")
    parser.add_argument(
        "--peers", type=Path, default=None, help="an interpreter with torch-audit and TrainCheck (benchmarks/detection)"
    )
    parser.add_argument("--bare", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.only or list(TRAININGS)
    if options.bare is not None:
        print(json.dumps(taken(names[0], options.rounds, options.bare)))
        return
    content = json.loads(JSON.read_text()) if JSON.exists() else {"trainings": {}}
    content["command"] = (
        f"python benchmarks/overhead/steps.py --rounds {options.rounds} --processes {options.processes}"
    )
    content["command"] += f" --peers {options.peers}" if options.peers else ""
    content |= machine()
    for name in names:
        found, installed = measure(name, options.rounds, options.processes, Path(sys.executable))
        content["versions"] = content.get("versions", {}) | installed
        if options.peers and name in LOOPS:
            peers, installed = measure(name, options.rounds // options.processes, 1, options.peers)
            found |= {arm: row for arm, row in peers.items() if arm not in found}
            content["versions"] = installed | content["versions"]
        content["trainings"][name] = {"title": TRAININGS[name][0], **found}
        JSON.write_text(json.dumps(content, indent=1) + "\n")
        PAGE.write_text(page(content))


if __name__ == "__main__":
    main()
