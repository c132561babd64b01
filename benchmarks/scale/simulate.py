"""What the exchange between ranks costs in a large job: one store that answers one request after the other.

``python benchmarks/scale/simulate.py`` prints the tables of docs/scale.md, in seconds; ``--measure`` first measures
how many requests a store of ``torch.distributed`` on this machine answers in a second.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import multiprocessing
import random
import time
from collections.abc import Callable, Generator

from ctcguard.team import HEAR_S, INTERVAL, LISTEN_S, PAUSE_A_RANK_S, PAUSE_S, RANKS_A_STEP

RANKS = (8, 64, 1024, 16384)
SERVICE_S = 25e-6
"""Time of the store for one request: it answers 40,000 in a second."""
PER_BYTE_S = 1e-9
NETWORK_S = 100e-6
"""There and back."""
JITTER_S = 1e-3
"""Spread of the moments at which ranks come to the same step."""
STEP_S = 0.5
LOOK_BYTES, VERDICT_BYTES = 120, 3000

Client = Generator[tuple[str, float], float, None]
"""Yields ("ask", bytes) or ("sleep", seconds), and gets the time at which it goes on."""


def simulate(clients: list[tuple[float, Client]], service_s: float) -> None:
    """Run clients that start at given times against one store, first come, first served."""
    number = itertools.count()
    events = [(start, next(number), client) for start, client in clients]
    heapq.heapify(events)
    free_at = 0.0
    for _, _, client in events:
        client.send(None)  # type: ignore[arg-type]
    while events:
        now, _, client = heapq.heappop(events)
        try:
            what, amount = client.send(now)
        except StopIteration:
            continue
        if what == "ask":
            free_at = max(now, free_at) + service_s + amount * PER_BYTE_S
            now = free_at + NETWORK_S
        else:
            now += amount
        heapq.heappush(events, (now, next(number), client))


def interval(ranks: int) -> int:
    """Steps between two looks."""
    return max(INTERVAL, -(-ranks // RANKS_A_STEP))


def looking(ranks: int, service_s: float, seed: int = 0) -> tuple[float, float]:
    """All ranks look at the same step: how long the mean and the last of them wait."""
    draw = random.Random(seed)
    waits: list[float] = []

    def look() -> Client:
        now = yield ("", 0)
        after = yield ("ask", LOOK_BYTES)
        del now
        waits.append(after)

    starts = [abs(draw.gauss(0, JITTER_S)) for _ in range(ranks)]
    simulate([(start, look()) for start in starts], service_s)
    return sum(waits) / ranks - sum(starts) / ranks, max(waits) - max(starts)


def failing(ranks: int, service_s: float, seed: int = 0) -> tuple[float, float]:
    """All ranks find the same cause at the same step: when rank 0 has shown it, and when the last rank knows."""
    draw = random.Random(seed)
    shown: list[float] = []
    known: list[float] = []
    posted: list[float] = []

    def asks(count: int, size: float = LOOK_BYTES) -> Client:
        now = 0.0
        for _ in range(count):
            now = yield ("ask", size)
        return now  # type: ignore[return-value]

    def rank() -> Client:
        now = yield ("", 0)
        yield from asks(5)  # what was heard of others
        now = yield ("ask", VERDICT_BYTES)
        if not posted:
            posted.append(now)
            yield from asks(2)
        while not shown:
            yield from asks(3)
            yield ("sleep", PAUSE_S + ranks * PAUSE_A_RANK_S)
        now = yield ("ask", LOOK_BYTES)
        known.append(now)

    def listener() -> Client:
        yield ("", 0)
        while not posted:
            yield ("sleep", draw.uniform(0, LISTEN_S))
            yield from asks(1)
        yield from asks(3, VERDICT_BYTES)
        now = yield ("ask", LOOK_BYTES)
        shown.append(now)

    clients = [(abs(draw.gauss(0, JITTER_S)), rank()) for _ in range(ranks)]
    simulate([*clients, (0.0, listener())], service_s)
    return shown[0], max(known)


def hammer(port: int, requests: int) -> None:
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    for _ in range(requests):
        store.check(["stop"])


def measured(clients: int = 4, requests: int = 5000) -> float:
    """Seconds for one request, of several processes that ask at the same time on this machine."""
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    hammer(store.port, 100)
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=hammer, args=(store.port, requests)) for _ in range(clients)]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return (time.perf_counter() - started) / clients / requests


def table(header: str, row: Callable[[int], str]) -> None:
    print(header)
    print("|" + " --: |" * (header.count("|") - 1))
    for ranks in RANKS:
        print(row(ranks))
    print()


def look_row(ranks: int, service_s: float) -> str:
    mean, last = looking(ranks, service_s)
    share = last / (interval(ranks) * STEP_S)
    cells = (
        f"{ranks:,}",
        interval(ranks),
        f"{ranks * LOOK_BYTES / 1000:,.1f}",
        f"{1e3 * mean:.2f}",
        f"{1e3 * last:.2f}",
        f"{100 * share:.4f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def fail_row(ranks: int, service_s: float) -> str:
    shown, known = failing(ranks, service_s)
    return f"| {ranks:,} | {ranks * VERDICT_BYTES / 1e6:,.2f} | {shown:.2f} | {known:.2f} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--measure", action="store_true")
    service_s = SERVICE_S
    if options.parse_args().measure:
        service_s = measured()
        print(f"measured: {1e6 * service_s:.1f} µs a request\n")
    header = "| ranks | interval (steps) | kB an interval | mean wait (ms) | last wait (ms) | of the time (%) |"
    table(header, lambda ranks: look_row(ranks, service_s))
    table(
        "| ranks | verdicts sent (MB) | shown after (s) | all know after (s) |",
        lambda ranks: fail_row(ranks, service_s),
    )
    print(f"a gradient that is bad on all ranks is held back for at most {HEAR_S:g} s, once")


if __name__ == "__main__":
    main()
