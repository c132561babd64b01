"""What a training step costs with each tool: arms that take turns, step by step, in one process.

    python benchmarks/overhead/steps.py                      all trainings; writes steps.json and steps.md
    python benchmarks/overhead/steps.py --only wav2vec2      one training anew
    python benchmarks/overhead/steps.py --peers build/detection/bin/python
                                                             torch-audit and TrainCheck too, by the interpreter that
                                                             benchmarks/detection/run.py makes

The figure of an arm is the median over rounds of its time divided by that of the unguarded step of the same round, with
a 95% bootstrap interval of the median. "unguarded again" is a second, equal training: what it differs by is noise, and
where in memory an arm happened to be; so several processes share the rounds, and arms begin in another order in each.
The mean is that of
the arm's times divided by that of the unguarded ones: it has the rare dear steps in it. The other tools come
afterwards, with a quarter of the rounds: what they leave behind in memory is theirs. The peers' own interpreter has an
unguarded arm of its own, which they are divided by; TrainCheck instruments all of torch, so that it has a process of
its own, which takes its steps in turn. A tool that cannot run has its error in the table. One thread computes, so that
neighbours on the machine are not measured too, and Python collects its garbage between rounds. The clocks of the guards
stand still while it is the turn of others, so that their budgets are those of a run of its own; the arm without a
budget thins nothing.
"""

from __future__ import annotations

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "integrations")]

from benchmarks.overhead.ratios import Took, in_turns, machine, said, to_base  # noqa: E402 - after the path

JSON, PAGE = HERE / "steps.json", HERE / "steps.md"
ROUNDS, PROCESSES = 240, 3
PACKAGES = ("torch", "transformers", "jax", "optax", "flax", "torch-audit", "traincheck")
Arms = Iterator[tuple[str, Callable[[], Any] | str]]


def cnn_bilstm() -> Arms:
    from benchmarks.overhead import torch_arms, torch_loops

    return torch_arms.in_a_loop(torch_loops.cnn_bilstm)


def wav2vec2() -> Arms:
    from benchmarks.overhead import torch_arms, torch_loops

    return torch_arms.in_a_loop(torch_loops.wav2vec2)


def trainer() -> Arms:
    from benchmarks.overhead import torch_arms

    return torch_arms.in_the_trainer()


def flax() -> Arms:
    from benchmarks.overhead import jax_arms

    return jax_arms.in_flax()


TRAININGS: dict[str, tuple[str, Callable[[], Arms]]] = {
    "trainer": ("the demo's Wav2Vec2-BERT in the HF Trainer, 16 utterances", trainer),
    "cnn-bilstm": ("a CNN-BiLSTM in a plain loop, 32 × 250 × 32", cnn_bilstm),
    "wav2vec2": ("a tiny Wav2Vec2 on raw audio in a plain loop, 4 × 99 × 32", wav2vec2),
    "flax": ("a Flax nnx model and optax, jit, 16 × 300 × 64", flax),
}
LOOPS = ("cnn-bilstm", "wav2vec2")
"""What the peers can be attached to."""


def taken(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """What the arms of one training took in this process: the cheap ones, the dear ones, and what cannot run."""
    arms = dict(TRAININGS[name][1]())
    failed = {arm: take for arm, take in arms.items() if isinstance(take, str)}
    cheap = {arm: take for arm, take in arms.items() if arm.startswith(("unguarded", "ctcguard"))}
    dear = {arm: take for arm, take in arms.items() if arm not in cheap | failed}
    found = {"cheap": in_turns(cheap, rounds, 40, seed)}
    if dear:
        found["dear"] = in_turns({"unguarded": cheap["unguarded"]} | dear, rounds // 4, 5, seed)
    return {"taken": found, "failed": failed, "versions": versions()}


def measure(name: str, rounds: int, processes: int, python: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures of all arms of one training, from several processes, and what is installed there."""
    command = [python, __file__, "--only", name, "--rounds", str(rounds // processes), "--bare"]
    pooled: dict[str, dict[str, list[Took]]] = {}
    for seed in range(processes):
        printed = subprocess.run([*command, str(seed)], check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(printed.splitlines()[-1])
        for kind, arms in found["taken"].items():
            for arm, times in arms.items():
                pooled.setdefault(kind, {}).setdefault(arm, []).extend(Took(*took) for took in times)
    figures: dict[str, Any] = to_base(pooled["cheap"], "unguarded")
    figures |= {arm: row for arm, row in to_base(pooled.get("dear", {}), "unguarded").items() if arm not in figures}
    figures |= {arm: {"error": error} for arm, error in found["failed"].items()}
    print(f"{TRAININGS[name][0]}: {figures['unguarded']['ms']} ms a step", flush=True)
    for arm, row in figures.items():
        print(f"  {arm:<30} {row.get('error') or said(row['clock'])}", flush=True)
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
        f"the ratios, and its 95% interval. Written by `{content['command']}` on {content['machine']}, one thread.", "",
    ]  # fmt: skip
    for name, (title, _) in TRAININGS.items():
        if name not in content["trainings"]:
            continue
        arms = content["trainings"][name]
        lines += [f"## {title[0].upper()}{title[1:]}: {arms['unguarded']['ms']:g} ms", ""]
        lines += ["| tool | time | 95% | mean | processor time | 95% |", "| --- | --: | --: | --: | --: | --: |"]
        for arm, found in arms.items():
            if arm in ("title", "unguarded"):
                continue
            if "error" in found:
                lines.append(f"| {arm} | cannot: {found['error'].replace('|', '/')} | | | | |")
                continue
            cells = [*shown(found["clock"]), f"{found['mean']:.3f}", *shown(found["processor"])]
            lines.append(f"| {' | '.join((arm, *cells))} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*TRAININGS], action="append", default=None)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="one step of each arm in every round")
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
            peers, installed = measure(name, options.rounds // PROCESSES, 1, options.peers)
            found |= {arm: row for arm, row in peers.items() if arm not in found}
            content["versions"] = installed | content["versions"]
        content["trainings"][name] = {"title": TRAININGS[name][0], **found}
        JSON.write_text(json.dumps(content, indent=1) + "\n")
        PAGE.write_text(page(content))


if __name__ == "__main__":
    main()
