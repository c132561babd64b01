"""Several ranks in one process: what each shows, sends and raises, over a store that is a dictionary with a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctcguard import last_exit, team
from ctcguard.errors import CTCStop, CTCVerdictError
from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.ranks import Place
from ctcguard.reporter import Reporter
from ctcguard.settings import load
from ctcguard.team import INTERVAL, Team
from ctcguard.verdict import Verdict
from ctcguard.wire import from_text, to_text


class Shelf:
    """A store for ranks that are threads."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.lock = threading.Lock()
        self.asked = 0
        self.error: Exception | None = None
        self.silent = threading.Event()
        self.silent.set()

    def _ask(self) -> None:
        self.asked += 1
        self.silent.wait(10)
        if self.error is not None:
            raise self.error

    def put_once(self, key: str, text: str) -> bool:
        self._ask()
        with self.lock:
            return self.texts.setdefault(key, text) is text

    def get(self, key: str) -> str | None:
        self._ask()
        return self.texts.get(key)

    def add(self, key: str, amount: int) -> int:
        self._ask()
        with self.lock:
            self.numbers[key] = self.numbers.get(key, 0) + amount
            return self.numbers[key]


class Sink:
    """Writes down what it is told."""

    def __init__(self, name: str, active: bool = False) -> None:
        self.name, self.active = name, active
        self.verdicts: list[Verdict] = []

    def finding(self, finding: Finding) -> None: ...

    def verdict(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    def readings(self, scalars: Any, step: int) -> None: ...

    def end(self, record: Any) -> None: ...


class Rank:
    """One rank, with a console and an alert sink."""

    def __init__(self, shelf: Shelf, rank: int, ranks: int, holder: int = 0, **settings: Any) -> None:
        self.console, self.alerts = Sink("console"), Sink("wandb", active=rank == holder)
        self.place = Place(rank, ranks)
        self.reporter = Reporter(load(**settings), [self.console, self.alerts])
        self.team = self.reporter.job = Team(shelf, self.place, self.reporter)

    def finds(self, code: str = "CTC301", cause: str = "too-short", step: int = 3, **more: Any) -> None:
        self.reporter.report([a_finding(code, cause, step, **self.place._asdict(), **more)])


def a_finding(code: str, cause: str, step: int, **more: Any) -> Finding:
    item = Utterance(index=2, id="clip-7", note="2 frames for 5 labels", labels=(1, 2), text="ab")
    body = {"severity": Severity.ERROR, "message": "m", "fix": "f", "utterances": (item,), "affected": {2, 3}}
    return Finding(code=code, name="n", cause=cause, step=step, **{**body, **more})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "LISTEN_S", 0.02)
    monkeypatch.setattr(team, "DEADLINE_S", 1.0)
    monkeypatch.setattr(team, "CLOSE_S", 0.3)
    monkeypatch.setattr(last_exit, "arm", lambda rank: None)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


Join = Callable[..., list[Rank]]


@pytest.fixture
def join(shelf: Shelf) -> Iterator[Join]:
    ranks: list[Rank] = []

    def joined(count: int, **settings: Any) -> list[Rank]:
        ranks.extend(Rank(shelf, number, count, **settings) for number in range(count))
        return list(ranks)

    yield joined
    together(*(rank.team.close for rank in ranks))


def together(*calls: Callable[[], Any]) -> list[BaseException | None]:
    """Make the calls at the same time; what each raised."""
    raised: list[BaseException | None] = [None] * len(calls)

    def one(number: int) -> None:
        try:
            calls[number]()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            raised[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a rank hangs"
    return raised


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


def test_ranks_with_nothing_to_say_ask_for_nothing_in_their_steps(shelf: Shelf, join: Join) -> None:
    ranks = join(3, holder=-1)
    listening, asked = len([rank for rank in ranks if rank.team._listener]), []
    for rank in ranks[1:]:
        before = shelf.asked
        for _ in range(3 * INTERVAL):
            rank.team.poll()
            rank.team.counted()
        asked.append(shelf.asked - before)
    assert listening == 1
    assert max(asked) <= 2  # rank 0 listens meanwhile


@pytest.mark.parametrize("finder", [0, 1, 3])
@pytest.mark.parametrize("holder", [0, 1, 2])
def test_rank_0_shows_and_the_holder_of_the_run_sends_whoever_found_it(join: Join, finder: int, holder: int) -> None:
    ranks = join(4, holder=holder, on_error="alert")
    ranks[finder].finds()
    ranks[(finder + 1) % 4].finds(step=5)
    soon(lambda: bool(ranks[0].console.verdicts and ranks[holder].alerts.verdicts))
    time.sleep(0.1)
    assert [len(rank.console.verdicts) for rank in ranks] == [1, 0, 0, 0]
    sent = [verdict for rank in ranks for verdict in rank.alerts.verdicts if rank.alerts.active]
    assert len(sent) == 1
    for verdict in (ranks[0].console.verdicts[0], sent[0]):
        assert verdict.headline().endswith(f"step 3 · rank {finder} of 4")
        assert verdict.utterance_lines() == ["utterance 2 id clip-7 'ab': 2 frames for 5 labels", "and 1 more"]


def test_all_at_once_is_shown_once_before_any_of_them_raises(join: Join) -> None:
    ranks = join(6)
    errors = together(*(rank.finds for rank in ranks))
    assert [type(error) for error in errors] == [CTCVerdictError] * 6
    assert sum(len(rank.console.verdicts) for rank in ranks) == len(ranks[0].console.verdicts) == 1
    assert all("shown once for all ranks" in str(error) for error in errors)


def test_two_causes_are_two_verdicts(join: Join) -> None:
    ranks = join(3, on_error="alert")
    ranks[1].finds()
    ranks[2].finds("CTC201", "label-beyond-head")
    soon(lambda: len(ranks[0].alerts.verdicts) == 2)  # which are told after the console
    for sink in (ranks[0].console, ranks[0].alerts):
        assert {verdict.code for verdict in sink.verdicts} == {"CTC301", "CTC201"}


def test_what_is_only_logged_leaves_no_rank(shelf: Shelf, join: Join) -> None:
    ranks = join(2, on_error="log")
    ranks[1].finds()
    assert not [key for key in shelf.texts if "CTC301" in key]


def test_without_rank_0_the_failing_one_shows_it_itself(shelf: Shelf) -> None:
    alone = Rank(shelf, 3, 4, holder=-1)
    with pytest.raises(CTCVerdictError):
        alone.finds()
    assert len(alone.console.verdicts) == 1


@pytest.mark.parametrize("found_at", [0, 1, INTERVAL - 1, INTERVAL, INTERVAL + 1])
def test_all_stop_at_the_next_step_at_which_all_look(join: Join, found_at: int) -> None:
    ranks = join(3, on_error="stop")
    stopped = {}
    for step in range(3 * INTERVAL):
        for rank in ranks:  # one of them comes to a step before the other has found anything in it
            if rank is ranks[1] and step == found_at:
                rank.finds(step=step)
            try:
                rank.team.poll()
            except CTCStop as stop:
                stopped[rank.place.rank] = step, stop.verdict.root.rank, rank.reporter.stop is stop.verdict
            rank.team.counted()
        if stopped:
            break
    assert stopped == dict.fromkeys(range(3), ((found_at // INTERVAL + 1) * INTERVAL, 1, True))


def test_a_trainer_that_can_be_asked_to_stop_sees_it(join: Join) -> None:
    ranks = join(2, on_error="stop")
    for rank in ranks:
        rank.reporter.stop_by_raising = False
    ranks[1].finds()
    for rank in ranks:
        for _ in range(INTERVAL):
            assert rank.reporter.stop is None
            rank.team.counted()
        rank.team.poll()
        assert rank.reporter.stop is not None


def test_nan_in_the_gradients_of_all_is_the_verdict_of_the_one_whose_loss_was_bad(join: Join) -> None:
    ranks = join(3, on_error="alert")

    def late() -> None:
        time.sleep(0.2)
        ranks[1].reporter.report([a_finding("CTC502", "overflow", 3, explains=("CTC601",), **ranks[1].place._asdict())])

    together(late, lambda: ranks[2].finds("CTC601", "backward"), lambda: ranks[0].finds("CTC601", "backward"))
    ranks[2].finds("CTC403", "nan", step=4)
    soon(lambda: bool(ranks[0].alerts.verdicts))
    time.sleep(0.1)
    assert [verdict.code for verdict in ranks[0].console.verdicts] == ["CTC502"]
    assert [finding.code for finding in ranks[2].reporter.findings] == ["CTC601", "CTC403"]


def test_nan_in_the_gradients_alone_is_said(join: Join) -> None:
    ranks = join(2, on_error="alert")
    ranks[1].finds("CTC601", "backward")
    soon(lambda: [verdict.code for verdict in ranks[0].console.verdicts] == ["CTC601"])


@pytest.mark.parametrize("how", ["fails", "is silent"])
@pytest.mark.parametrize("reaction", ["alert", "stop", "raise"])
def test_a_store_that_is_gone_ends_the_exchange_and_nothing_else(shelf: Shelf, how: str, reaction: str) -> None:
    rank = Rank(shelf, 1, 2, holder=1, on_error=reaction)
    if how == "fails":
        shelf.error = ConnectionError("gone")
    else:
        shelf.silent.clear()
    started = time.monotonic()
    if reaction == "raise":
        with pytest.raises(CTCVerdictError):
            rank.finds()
    else:
        rank.finds()
    rank.team.counted()
    rank.team.poll()
    rank.team.close()
    assert time.monotonic() - started < 5
    shelf.silent.set()
    assert [finding.code for finding in rank.reporter.findings if finding.code != "CTC301"] == ["CTC902"]
    assert "CTC301" in [verdict.code for verdict in rank.console.verdicts]


def test_the_last_finding_of_a_rank_is_waited_for(join: Join) -> None:
    ranks = join(2, on_error="alert")

    def ends() -> None:
        time.sleep(0.1)
        ranks[1].finds()
        ranks[1].team.close()

    together(ranks[0].team.close, ends)
    assert len(ranks[0].console.verdicts) == len(ranks[0].alerts.verdicts) == 1


def test_rank_0_that_has_closed_leaves_it_to_the_finder(join: Join) -> None:
    ranks = join(2, on_error="alert")
    ranks[0].team.close()
    ranks[1].finds()
    ranks[1].team.close()
    assert len(ranks[1].console.verdicts) == 1


def test_over_the_wire_a_verdict_keeps_what_people_read() -> None:
    root = a_finding("CTC301", "too-short", 3, rank=5, ranks=8, readings={"worst": float("nan")})
    symptom = a_finding("CTC502", "overflow", 3)
    sent = Verdict(root=root, also=(symptom,), ruled_out=("CTC201",), action="raise")
    got = from_text(to_text(sent))
    assert got.text() == sent.text()
    assert got.action == "raise"
    assert got.root.utterances[0].labels is None
    assert len(to_text(sent)) < 3000
