"""Two processes of JAX with two devices each: one program on global arrays over four devices, one verdict."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import LIMIT_S, panels, program, records


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.timeout(LIMIT_S + 30)
def test_one_verdict_of_two_processes_on_global_arrays() -> None:
    port = str(free_port())
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, program("processes"), str(number), port],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    finally:
        for process in both:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
    assert [process.returncode != 0 for process in both] == [True, True], said
    results = [json.loads(Path(f"result-{number}.json").read_text()) for number in range(2)]
    assert [(each["devices"], each["processes"]) for each in results] == [(4, 2), (4, 2)]
    for each in results:
        assert (each["equal"], each["healthy"], each["calls"]) == (True, [], 4)
    # Each process names the utterance by its place in the global batch, and shows its labels if it holds them.
    [[[far]], [[near]]] = [each["alert"] for each in results]
    assert (far["index"], far["labels"]) == (6, None)
    assert (near["index"], near["labels"][1]) == (6, 14)
    # Said once, by the process that people look at; whoever of the two came first.
    assert len(panels(said[0], "CTC201")) == 3  # the alert of the first guard, what stopped the second, ended the third
    assert sum("│" in line and "utterance 6: 1 label ≥ 12" in line for line in said[0].splitlines()) == 3
    assert not panels(said[1], "CTC201")
    for number in range(2):
        verdict = f"CTC201 label-out-of-range · error · step 1 · rank {number} of 2"
        assert results[number]["stop"].startswith(verdict)
        assert f"CTCVerdictError: {verdict}" in said[number]
        for folder in ("stop", "end"):
            [end] = records(Path(f"{folder}/rank-{number}"), "end")
            assert end["steps"] == 1
