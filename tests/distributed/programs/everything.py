"""All that leaves a job running, one training after the other in one process group; then a verdict that ends it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import recogniser
import torch
import torch.distributed as dist
import wandb
from recogniser import accelerate, ddp, fsdp2, train

from ctcguard import watch

STEPS = 8
FAULT_AT, LAST_STEP = 5, 40
ENGINES = {"ddp": ddp, "fsdp2": fsdp2, "accelerate": accelerate}


def healthy(engine: str, uneven: bool = False) -> dict[str, Any]:
    """The same training without a guard and with one that looks whether to stop; no word, and the same weights."""
    alone = train(ENGINES[engine], STEPS, uneven=uneven)
    with watch(on_error="stop", on_warning="stop", run_dir=f"healthy-{engine}-{uneven}", sinks=("jsonl",)) as guard:
        guarded = train(ENGINES[engine], STEPS, uneven=uneven)
    return {
        "equal": alone == guarded,
        "steps": guarded[0],
        "calls": guard.guard.calls,
        "findings": [finding.code for finding in guard.findings],
    }


def stopped(engine: str) -> dict[str, Any]:
    """One rank has a bad batch, and no other knows."""
    last = dist.get_world_size() - 1
    with watch(on_warning="stop", run_dir=f"stop-{engine}", sinks=("jsonl",)) as guard:
        train(ENGINES[engine], LAST_STEP, lambda rank, step: rank == last and step == FAULT_AT, zero_infinity=True)
    taken, *weights = recogniser.TAKEN
    stop = guard.guard.reporter.stop
    return {
        "taken": taken,
        "weights": weights if engine == "ddp" else [],
        "stop": stop and [stop.code, stop.root.rank, stop.root.step, stop.utterance_lines()],
        "found": [finding.code for finding in guard.findings],
    }


def alerted(holder: int) -> dict[str, Any]:
    """The same cause in all ranks but the one that holds the run, at different steps; with it, NaN comes to all."""
    rank = dist.get_rank()
    run = None
    if rank == holder:
        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        run = wandb.init(mode="offline", settings=quiet)
    with watch(on_error="alert", run_dir="alert", sinks=("jsonl", "wandb")) as guard:
        train(ddp, STEPS, lambda rank, step: rank != holder and step in (rank + 2, rank + 4))
    folder = None
    if run is not None:
        folder = run.dir
        run.finish()
    return {"run": folder, "found": [finding.code for finding in guard.findings]}


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    result: dict[str, Any] = {"healthy": {engine: healthy(engine) for engine in ENGINES}}
    result["healthy"]["uneven"] = healthy("ddp", uneven=True)
    result["stop"] = {engine: stopped(engine) for engine in ("ddp", "fsdp2")}
    result["alert"] = alerted(holder=int(os.environ["HOLDER"]))
    Path(f"result-{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    everywhere = sys.argv[1] == "everywhere"
    with watch(run_dir="raise"):
        train(ddp, STEPS, lambda rank, step: step == 3 and (everywhere or rank == dist.get_world_size() - 1))
    print("this is not reached")


main()
