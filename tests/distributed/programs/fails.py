"""The last rank gets a verdict while the others wait for it in an all-reduce; the argument says what it does then."""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist
from recogniser import ddp, train

from ctcguard import last_exit, watch


class Stuck:
    """What a library may do while the interpreter closes."""

    def __del__(self, sleep: object = time.sleep) -> None:
        sleep(600)  # type: ignore[operator]


def main() -> None:
    last_exit.GRACE_S = 3.0
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    last = dist.get_world_size() - 1
    try:
        with watch(run_dir="fails"):
            train(ddp, 8, lambda rank, step: rank == last and step == 3)
    except Exception:
        if sys.argv[1] == "caught":
            print("something went wrong; waiting for the others", flush=True)
            time.sleep(600)
        if sys.argv[1] == "stuck":
            sys.modules["__main__"].stuck = Stuck()  # type: ignore[attr-defined]
        raise
    finally:
        if sys.argv[1] == "barrier":
            dist.barrier()
    print("this is not reached")


main()
