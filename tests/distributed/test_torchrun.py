"""Jobs under torchrun, on gloo: each launch checks several things, for most of its time goes into imports.

To repeat them 20 times: ``for i in $(seq 20); do pytest -q -n 0 tests/distributed || break; done``
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from tests.distributed.launch import LIMIT_S, Outcome, panels, program, records, results, torchrun

pytestmark = pytest.mark.timeout(2 * LIMIT_S)
INTERVAL, FAULT_AT = 16, 5
STEPS = 8


class Job:
    """What a launch of ``everything.py`` left: its console, and the result of each rank."""

    def __init__(self, ranks: int, outcome: Outcome) -> None:
        self.ranks, self.outcome, self.folder = ranks, outcome, Path.cwd()
        self.results = results(ranks)


@pytest.fixture(scope="module", params=[2, 4])
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One launch. Of 2 ranks rank 0 holds the run and rank 1 gets the final verdict; of 4, rank 3 and all."""
    ranks = int(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp(f"ranks{ranks}"))
        holder, fails = ("0", "last") if ranks == 2 else ("3", "everywhere")
        outcome = torchrun(ranks, program("everything"), fails, HOLDER=holder, WANDB_MODE="offline")
        assert Path("result-0.json").exists(), outcome.console
        return Job(ranks, outcome)


@pytest.mark.parametrize("way", ["ddp", "fsdp2", "accelerate", "uneven"])
def test_healthy_ranks_are_silent_and_their_weights_the_same_bit_for_bit(everything: Job, way: str) -> None:
    for rank, result in enumerate(everything.results):
        steps = STEPS - 2 * rank * (way == "uneven")
        assert result["healthy"][way] == {"equal": True, "steps": steps, "calls": steps, "findings": []}


def test_a_healthy_rank_leaves_one_line_in_a_folder_of_its_own(everything: Job) -> None:
    for rank in range(everything.ranks):
        [end] = records(everything.folder / "healthy-ddp-False" / f"rank-{rank}", "end")
        assert (end["steps"], end["findings"]) == (STEPS, 0)
        assert not records(everything.folder / "healthy-ddp-False" / f"rank-{rank}", "finding")


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_all_ranks_stop_at_the_same_step_though_one_has_found_something(everything: Job, engine: str) -> None:
    last = everything.ranks - 1
    said = ["CTC301", last, FAULT_AT, ["utterance 2: 2 frames for 5 labels + 0 adjacent repeats"]]
    for rank, result in enumerate(everything.results):
        assert result["stop"][engine]["taken"] == INTERVAL
        assert result["stop"][engine]["stop"][:3] == said[:3]
        assert result["stop"][engine]["stop"][3][0].startswith("utterance 2: 2 frames for 5 labels")
        assert bool(result["stop"][engine]["found"]) == (rank == last)
    assert len({str(result["stop"][engine]["weights"]) for result in everything.results}) == 1


def test_one_alert_per_cause_from_the_rank_with_the_run_names_rank_and_utterance(everything: Job) -> None:
    [folder] = [result["alert"]["run"] for result in everything.results if result["alert"]["run"]]
    [alert] = [record.alert for record in wandb_records(Path(folder)) if record.WhichOneof("record_type") == "alert"]
    first = 1 if everything.ranks == 2 else 0
    assert alert.title == f"CTC301 too-few-frames at step {first + 2}"
    assert f"rank {first} of {everything.ranks}" in alert.text
    assert "utterance 2: 2 frames for 5 labels" in alert.text
    # The NaN reached the weights of all ranks: all of them found it, none took it for a cause of its own.
    assert all({"CTC403", "CTC601"} <= set(result["alert"]["found"]) for result in everything.results)


def test_a_verdict_ends_the_job_and_is_shown_once(everything: Job) -> None:
    code, console, seconds = everything.outcome
    assert code != 0
    assert "this is not reached" not in console
    assert seconds < LIMIT_S
    last = everything.ranks - 1
    failing = [last] if everything.ranks == 2 else list(range(everything.ranks))
    [panel] = panels(console, "CTC301")
    assert any(f"step 3 · rank {rank} of {everything.ranks}" in panel for rank in failing)
    assert console.count("fewer frames than labels: cut too short") == 1
    for rank in range(everything.ranks):
        folder = everything.folder / "raise" / f"rank-{rank}"
        if rank not in failing and not folder.exists():
            continue  # the launcher ended it before it wrote its only line, the last
        assert [verdict["code"] for verdict in records(folder, "verdict")] == ["CTC301"] * (rank in failing)
        assert {finding["rank"] for finding in records(folder, "finding")} == ({rank} if rank in failing else set())


@pytest.mark.parametrize("what", ["caught", "barrier"])
def test_no_rank_hangs_whatever_the_program_does_with_the_verdict(what: str) -> None:
    code, console, _ = torchrun(2, program("fails"), what)
    assert code != 0
    assert "ctcguard: rank 1 was still there 3 s after its verdict; ended, for other ranks wait for it" in console
    assert len(panels(console, "CTC301")) == 1
    assert [verdict["action"] for verdict in records(Path("fails/rank-1"), "verdict")] == ["raise"]


def test_with_logs_of_their_own_the_verdict_is_in_that_of_rank_0_and_the_failing_one_names_it_and_cannot_hang() -> None:
    code, console, _ = torchrun(2, "--redirects", "3", "--log-dir", "logs", program("fails"), "stuck")
    assert code != 0
    assert "SIGALRM" in console
    assert not panels(console, "CTC301")
    errors = {file.parent.name: file.read_text() for file in Path("logs").rglob("stderr.log")}
    assert len(panels(errors["0"], "CTC301")) == 1
    assert not panels(errors["1"], "CTC301")
    assert "CTCVerdictError: CTC301 too-few-frames · error · step 3 · rank 1 of 2" in errors["1"]
    assert [verdict["action"] for verdict in records(Path("fails/rank-1"), "verdict")] == ["raise"]


def test_ctcguard_run_on_a_program_that_knows_nothing_of_it() -> None:
    code, console, _ = torchrun(2, "-m", "ctcguard", "run", "--run-dir", "run", program("unaware"))
    assert code != 0
    assert "exitcode  : 3" in console
    assert "CTCVerdictError" not in console
    assert len(panels(console, "CTC301")) == 1
    assert [verdict["code"] for verdict in records(Path("run/rank-1"), "verdict")] == ["CTC301"]
    # The launcher may have ended the other rank before it wrote its only line, the last.
    assert not Path("run/rank-0/findings.jsonl").exists() or not records(Path("run/rank-0"), "verdict")


def test_the_trainer_of_hugging_face_healthy_resumed_stopped_and_ended() -> None:
    code, console, _ = torchrun(2, program("trainer"))
    assert Path("result-0.json").exists(), console
    for rank, result in enumerate(results(2)):
        assert result["healthy"] == {
            "equal": True,
            "state": ["ctcguard-rank0.json", "ctcguard-rank1.json"],
            "calls": [6, 2],
            "remembered": [6, 6],  # the resumed one has the calls of the first four steps from the checkpoint
            "findings": [],
        }
        assert result["stopped"]["stop"] == ["CTC301", 1, 1]
        assert bool(result["stopped"]["found"]) == (rank == 1)
    assert len({str((result["stopped"]["steps"], result["stopped"]["weights"])) for result in results(2)}) == 1
    assert code != 0
    assert "this is not reached" not in console
    assert len(panels(console, "CTC301")) == 2  # one stopped, one ended
    assert [verdict["action"] for verdict in records(Path("raised/ctcguard/rank-1"), "verdict")] == ["raise"]


@cache
def wandb_records(folder: Path) -> list[Any]:
    """The records in the file of an offline run: a header, then blocks of 32 KiB with checksummed pieces."""
    [file] = folder.parent.glob("*.wandb")
    data, position, found, part = file.read_bytes(), 7, [], b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        part += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            found.append(Record.FromString(part))
            part = b""
    return found
