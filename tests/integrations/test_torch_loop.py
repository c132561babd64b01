"""`watch` in real PyTorch loops: the right verdict at the right step, the weights untouched, healthy runs silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ctcguard_integrations.torch_capture as torch_capture
from ctcguard import CTCVerdictError, watch
from ctcguard.errors import CallError

CLASSES = 29
BLANK = 28
Change = Callable[[int, dict[str, Any]], None]


def unchanged(step: int, batch: dict[str, Any]) -> None:
    """A healthy batch."""


class Loop:
    """A user's training loop, with one place where a batch can be spoilt."""

    def __init__(
        self, spoil: Change = unchanged, normalise: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        self.generator = torch.Generator().manual_seed(3)
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, CLASSES))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.spoil = spoil
        self.normalise = normalise or (lambda x: x.log_softmax(-1))
        self.options: dict[str, Any] = {}
        self.losses: list[float] = []

    def batch(self, step: int) -> dict[str, Any]:
        batch = {
            "features": torch.randn(40, 4, 8, generator=self.generator),
            "targets": torch.randint(0, BLANK, (4, 6), generator=self.generator),
            "input_lengths": torch.tensor([40, 36, 30, 22]),
            "target_lengths": torch.tensor([6, 6, 5, 4]),
        }
        self.spoil(step, batch)
        return batch

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        log_probs = self.normalise(self.net(batch["features"]))
        criterion = torch.nn.CTCLoss(blank=BLANK, **self.options)
        return criterion(log_probs, batch["targets"], batch["input_lengths"], batch["target_lengths"])

    def step(self, step: int, accumulate: int = 1) -> None:
        self.optimizer.zero_grad()
        for _ in range(accumulate):
            loss = self.loss(self.batch(step))
            loss.backward()
            self.losses.append(float(loss.detach()))
        self.optimizer.step()

    def run(self, steps: int) -> None:
        for step in range(steps):
            self.step(step)

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.net.parameters()]


def records(run_dir: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run_dir) / "findings.jsonl").read_text().splitlines()]


def verdict_of(loop: Loop, steps: int = 8, **settings: Any) -> Any:
    with pytest.raises(CTCVerdictError) as caught, watch(**settings):
        loop.run(steps)
    return caught.value.verdict


def test_a_healthy_run_is_silent_and_unchanged() -> None:
    plain, guarded = Loop(), Loop()
    plain.run(12)
    with watch(run_dir="run") as guard:
        guarded.run(12)
    assert guarded.losses == plain.losses
    assert all(torch.equal(a, b) for a, b in zip(plain.weights(), guarded.weights(), strict=True))
    assert guard.findings == []
    (end,) = records("run")
    assert (end["type"], end["steps"], end["calls"], end["findings"]) == ("end", 12, 12, 0)
    assert 0 < end["overhead_fraction"] < 1


@pytest.mark.parametrize(("amp", "reduction"), [("off", "sum"), ("off", "mean"), ("bfloat16", "mean")])
def test_weights_are_bit_equal_with_dropout_accumulation_and_amp(amp: str, reduction: str) -> None:
    def train(guarded: bool) -> list[torch.Tensor]:
        loop = Loop()
        loop.net.insert(2, torch.nn.Dropout(0.3))
        loop.options = {"reduction": reduction}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp != "off"):
            guard = watch() if guarded else None
            for step in range(10):
                loop.step(step, accumulate=2)
            if guard is not None:
                guard.close()
                assert guard.findings == []
        return loop.weights()

    assert all(torch.equal(a, b) for a, b in zip(train(False), train(True), strict=True))


def test_the_forum_mistake_softmax_instead_of_log_softmax() -> None:
    loop = Loop(normalise=lambda x: x.softmax(-1))
    before = loop.weights()
    verdict = verdict_of(loop, run_dir="run")
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC402", "probabilities", 0)
    assert [finding.code for finding in verdict.also] == ["CTC401", "CTC501"]
    assert "log_softmax" in verdict.root.fix
    assert (
        verdict.root.call_site.startswith(("test_torch_loop.py", "/")) or "test_torch_loop.py" in verdict.root.call_site
    )
    assert all(torch.equal(a, b) for a, b in zip(before, loop.weights(), strict=True))
    kinds = [(record["type"], record.get("code")) for record in records("run")]
    assert kinds.count(("verdict", "CTC402")) == 1
    assert kinds[-1] == ("end", None)


CAUSES = {
    "raw logits": (lambda x: x, "CTC402", "raw-logits"),
    "temperature after the softmax": (lambda x: x.log_softmax(-1) / 2, "CTC402", "altered-after-softmax"),
    "softmax over time": (lambda x: x.log_softmax(0), "CTC402", "wrong-axis"),
    "softmax over the batch": (lambda x: x.log_softmax(1), "CTC402", "wrong-axis"),
}


@pytest.mark.parametrize("mistake", CAUSES)
def test_wrong_normalisations(mistake: str) -> None:
    normalise, code, cause = CAUSES[mistake]
    verdict = verdict_of(Loop(normalise=normalise))
    assert (verdict.code, verdict.cause, verdict.step) == (code, cause, 0)


def spoilt_at(step: int, **changes: Any) -> Change:
    def spoil(now: int, batch: dict[str, Any]) -> None:
        if now == step:
            for name, change in changes.items():
                change(batch[name])

    return spoil


def put(index: Any, value: float) -> Callable[[torch.Tensor], None]:
    def change(array: torch.Tensor) -> None:
        array[index] = value

    return change


BATCHES = {
    "label beyond the head": (put((1, 2), 31), "targets", "CTC201", 1),
    "negative label": (put((2, 3), -100), "targets", "CTC202", 2),
    "blank in the target": (put((0, 2), BLANK), "targets", "CTC203", 0),
    "too few frames": (put(3, 3), "input_lengths", "CTC301", 3),
    "length beyond time": (put(0, 41), "input_lengths", "CTC302", 0),
    "more labels than the buffer": (put(0, 9), "target_lengths", "CTC303", 0),
}


@pytest.mark.parametrize("mistake", BATCHES)
def test_one_bad_batch(mistake: str) -> None:
    change, name, code, utterance = BATCHES[mistake]
    loop = Loop(spoilt_at(3, **{name: change}))
    verdict = verdict_of(loop)
    assert (verdict.code, verdict.step, verdict.root.utterances[0].index) == (code, 3, utterance)
    reference = Loop(spoilt_at(3, **{name: change}))
    reference.run(3)
    assert all(torch.equal(a, b) for a, b in zip(reference.weights(), loop.weights(), strict=True))


def test_a_nan_in_one_utterance_names_step_and_utterance_and_no_weight_changes() -> None:
    loop = Loop(spoilt_at(5, features=put((7, 2), float("nan"))))
    verdict = verdict_of(loop)
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC403", "non-finite-features", 5)
    assert [utterance.index for utterance in verdict.root.utterances] == [2]
    assert "CTC502" in [finding.code for finding in verdict.also]
    reference = Loop()
    reference.run(5)
    assert all(torch.equal(a, b) for a, b in zip(reference.weights(), loop.weights(), strict=True))


def test_utterances_carry_the_names_that_the_user_gave() -> None:
    loop = Loop(spoilt_at(1, input_lengths=put(2, 3)))

    def train() -> None:
        for step in range(3):
            guard.batch(f"clip-{step}-{i}.wav" for i in range(4))
            loop.step(step)

    vocabulary = [*"abcdefghijklmnopqrstuvwxyz'", " ", "_"]
    with pytest.raises(CTCVerdictError, match=r"clip-1-2\.wav"), watch(vocabulary=vocabulary) as guard:
        train()
    utterance = guard.verdicts[0].root.utterances[0]
    assert utterance.id == "clip-1-2.wav"
    assert utterance.text is not None
    assert len(utterance.text) == 5


def test_zero_infinity_hides_a_clip_reported_once_and_training_goes_on() -> None:
    loop = Loop(lambda step, batch: put(3, 2)(batch["input_lengths"]))
    loop.options = {"zero_infinity": True}
    with watch(run_dir="run") as guard:
        loop.run(4)
    assert len(loop.losses) == 4
    assert [(verdict.code, verdict.action) for verdict in guard.verdicts] == [("CTC301", "alert")]
    assert {finding.code for finding in guard.verdicts[0].also} == {"CTC503"}
    assert sum(record["type"] == "finding" and record["code"] == "CTC301" for record in records("run")) == 4


def test_alert_lets_training_go_on_and_reports_the_poisoned_run_once() -> None:
    loop = Loop(spoilt_at(2, input_lengths=put(3, 2)))
    with watch(on_error="alert") as guard:
        loop.run(8)
    assert len(loop.losses) == 8
    assert [(verdict.code, verdict.step) for verdict in guard.verdicts] == [("CTC301", 2)]
    assert {finding.code for finding in guard.findings} >= {"CTC301", "CTC502", "CTC601"}


def test_stop_leaves_the_block_quietly() -> None:
    loop = Loop(spoilt_at(2, input_lengths=put(3, 2)))
    with watch(on_error="stop", run_dir="run") as guard:
        loop.run(8)
        pytest.fail("the block went on")
    assert len(loop.losses) == 2
    assert guard.verdicts[0].action == "stop"
    assert records("run")[-1]["type"] == "end"


def test_steps_micro_steps_and_phases() -> None:
    loop = Loop()
    seen = []
    with watch() as guard:
        opened = guard.guard.open

        def spy(call: Any, phase: Any, early: bool) -> Any:
            case = opened(call, phase, early)
            seen.append((case.where.phase, case.where.step, case.where.micro_step))
            return case

        guard.guard.open = spy  # type: ignore[method-assign]
        for step in range(2):
            loop.step(step, accumulate=2)
            with torch.no_grad():
                loop.loss(loop.batch(step))
    assert seen == [
        ("train", 0, 0), ("train", 0, 1), ("eval", 1, 0), ("train", 1, 0), ("train", 1, 1), ("eval", 2, 0),
    ]  # fmt: skip


def test_two_optimizers_after_one_loss_are_one_step() -> None:
    loop = Loop()
    first = torch.optim.SGD(loop.net[0].parameters(), lr=0.1)
    second = torch.optim.SGD(loop.net[2].parameters(), lr=0.1)
    with watch() as guard:
        for step in range(12):
            loop.loss(loop.batch(step)).backward()
            first.step()
            second.step()
    assert guard.guard.step == 12
    assert guard.findings == []


def test_evaluation_never_raises() -> None:
    loop = Loop(lambda step, batch: put(3, 2)(batch["input_lengths"]))
    with watch() as guard, torch.no_grad():
        loop.loss(loop.batch(0))
    assert [(verdict.code, verdict.action, verdict.root.phase) for verdict in guard.verdicts] == [
        ("CTC301", "alert", "eval")
    ]


def test_nan_beyond_the_valid_frames_poisons_the_gradient_and_is_caught_there() -> None:
    """torch: the loss is finite, the gradient NaN (facts: NaN only in padded frames)."""
    loop = Loop(spoilt_at(2, features=put((35, 3), float("nan"))))
    verdict = verdict_of(loop)
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC601", "padded-frames", 2)
    assert [utterance.index for utterance in verdict.root.utterances] == [3]
    assert all(bool(torch.isfinite(weight).all()) for weight in loop.weights())


def test_garbage_beyond_the_valid_frames_is_nobodys_business() -> None:
    loop = Loop(lambda step, batch: put((slice(30, None), 3), 1e4)(batch["features"]))
    with watch() as guard:
        loop.run(5)
    assert guard.findings == []


def broken_gradient(step: int) -> Change:
    class Explode(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * float("inf")

    def spoil(now: int, batch: dict[str, Any]) -> None:
        batch["explode"] = Explode.apply if now == step else None

    return spoil


def test_overflow_in_backward_is_caught_before_the_update() -> None:
    loop = Loop(broken_gradient(2))
    plain_batch = loop.batch
    explode: list[Any] = [None]

    def batch(step: int) -> dict[str, Any]:
        made = plain_batch(step)
        explode[0] = made.pop("explode")
        return made

    loop.batch = batch  # type: ignore[method-assign]
    loop.normalise = lambda x: (explode[0](x) if explode[0] else x).log_softmax(-1)
    verdict = verdict_of(loop)
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC601", "backward", 2)
    assert "16" in verdict.root.message or "8" in verdict.root.message
    assert all(bool(torch.isfinite(weight).all()) for weight in loop.weights())


def test_no_gradient_reaches_the_head_detached() -> None:
    loop = Loop(normalise=lambda x: x.detach().log_softmax(-1))
    other = torch.nn.Parameter(torch.zeros(3))
    loop.optimizer.add_param_group({"params": [other]})
    with watch() as guard:
        for step in range(6):
            (loop.loss(loop.batch(step)) + other.sum()).backward()
            loop.optimizer.step()
    assert [(verdict.code, verdict.cause) for verdict in guard.verdicts] == [("CTC603", "detached")]


def test_zero_grad_between_backward_and_step() -> None:
    loop = Loop()

    def train() -> None:
        for step in range(8):
            loop.loss(loop.batch(step)).backward()
            loop.optimizer.zero_grad()
            loop.optimizer.step()

    with pytest.raises(CTCVerdictError) as caught, watch():
        train()
    assert (caught.value.verdict.code, caught.value.verdict.cause) == ("CTC603", "zeroed-before-step")


def test_head_that_no_optimizer_holds() -> None:
    loop = Loop()
    optimizer = loop.optimizer = torch.optim.AdamW(loop.net[0].parameters())
    with watch(on_error="alert") as guard:
        for step in range(8):
            optimizer.zero_grad()
            loop.loss(loop.batch(step)).backward()
            optimizer.step()
    assert [(verdict.code, verdict.cause) for verdict in guard.verdicts] == [("CTC603", "not-in-optimizer")]


def test_a_head_frozen_on_purpose_is_information_at_most() -> None:
    loop = Loop()
    loop.net[2].requires_grad_(False)
    with watch() as guard:
        loop.run(8)
    assert {finding.severity.value for finding in guard.findings} <= {"information"}


def test_an_overflow_step_that_a_grad_scaler_skips_is_silent() -> None:
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    with watch() as guard:
        for step in range(30):
            loop.optimizer.zero_grad()
            scaler.scale(loop.loss(loop.batch(step))).backward()
            scaler.step(loop.optimizer)
            scaler.update()
    assert guard.guard.step < 30
    assert guard.findings == []


def test_observe_a_loss_of_ones_own() -> None:
    scores = torch.randn(2, 20, 5, requires_grad=True)
    call = {"targets": [[1, 2], [3, 4]], "input_lengths": [20, 20], "target_lengths": [2, 2], "blank": 0}
    with watch() as guard:
        guard.observe(log_probs=scores.log_softmax(-1), **call)
        assert guard.findings == []
        with pytest.raises(CTCVerdictError, match="CTC402"):
            guard.observe(log_probs=scores, **call)
        with pytest.raises(CallError, match="one length for each of the 2 utterances"):
            guard.observe(log_probs=scores, **{**call, "input_lengths": [20]})


@pytest.mark.parametrize("given", [torch.Tensor.detach, torch.Tensor.numpy, torch.Tensor.tolist])
@pytest.mark.parametrize("wrong", [False, True])
def test_losses_of_ones_own_may_be_of_any_kind(given: Callable[..., Any], wrong: bool) -> None:
    log_probs = torch.randn(2, 20, 5).log_softmax(-1)
    call = {"targets": [[1, 2], [3, 4]], "input_lengths": [20, 20], "target_lengths": [2, 2], "blank": 0}
    labels = torch.tensor(call["targets"]), torch.tensor([20, 20]), torch.tensor([2, 2])
    losses = torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), *labels, reduction="none") * (-1 if wrong else 1)
    with watch(sinks=(), on_error="alert") as guard:
        guard.observe(log_probs=log_probs, **call, losses=given(losses), zero_infinity=True)
    assert {finding.code for finding in guard.findings} == ({"CTC501", "CTC504", "CTC505"} if wrong else set())


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements take the road of a CUDA device: packed, queued, read before the optimizer."""
    monkeypatch.setattr(torch_capture, "is_host", lambda value: False)
    monkeypatch.setattr("ctcguard_integrations.torch_gradients.is_host", lambda value: False)


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("mistake", ["too few frames", "blank in the target"])
def test_on_a_device_the_verdict_is_awaited_before_the_optimizer(mistake: str) -> None:
    change, name, code, utterance = BATCHES[mistake]
    loop = Loop(spoilt_at(3, **{name: change}))
    verdict = verdict_of(loop)
    assert (verdict.code, verdict.step, verdict.root.utterances[0].index) == (code, 3, utterance)
    reference = Loop(spoilt_at(3, **{name: change}))
    reference.run(3)
    assert all(torch.equal(a, b) for a, b in zip(reference.weights(), loop.weights(), strict=True))


@pytest.mark.usefixtures("as_on_a_device")
def test_on_a_device_healthy_runs_are_silent_and_alerts_come_later() -> None:
    with watch() as guard:
        Loop().run(6)
    assert guard.findings == []
    loop = Loop(normalise=lambda x: x.softmax(-1))
    with watch(on_error="alert", run_dir="run") as guard:
        loop.run(3)
    assert [(v.code, v.step, sorted({f.code for f in v.also})) for v in guard.verdicts] == [
        ("CTC402", 0, ["CTC401", "CTC501"])
    ]


@pytest.mark.usefixtures("as_on_a_device")
def test_a_gradient_that_is_not_finite_is_named_by_its_number_in_the_optimizer() -> None:
    loop = Loop()
    with watch(on_error="alert", run_dir="run") as guard:
        loop.run(2)
        loop.loss(loop.batch(2)).backward()
        loop.net[2].weight.grad[0, 0] = torch.inf
        loop.optimizer.step()
    first = guard.verdicts[0]
    assert (first.code, first.cause, first.step) == ("CTC601", "backward", 2)
    assert f"inf, first in parameter 2 of shape {tuple(loop.net[2].weight.shape)}" in first.root.message


class Sharded(torch.Tensor):
    """A gradient of which nothing lies on this rank."""

    def to_local(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)[:0]


@pytest.mark.parametrize("budget", [None, 0.01])
def test_a_rank_that_holds_nothing_of_any_gradient(budget: float | None) -> None:
    loop = Loop()
    with watch(run_dir="run", budget=budget) as guard:
        for step in range(3):
            loop.optimizer.zero_grad()
            loop.loss(loop.batch(step)).backward()
            for parameter in loop.net.parameters():
                parameter.grad = parameter.grad.as_subclass(Sharded)
            loop.optimizer.step()
    assert guard.findings == []


def test_the_guards_own_fault_never_reaches_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("a probe of ours")

    plain = Loop()
    plain.run(4)
    monkeypatch.setattr(torch_capture, "read", broken)
    loop = Loop()
    with watch(on_error="raise", on_warning="raise") as guard:
        loop.run(4)
    assert loop.losses == plain.losses
    assert [finding.code for finding in guard.findings] == ["CTC902"]
    assert "a probe of ours" in guard.findings[0].message


def test_a_guard_that_sees_nothing_says_so() -> None:
    with watch(run_dir="run") as guard:
        pass
    assert [finding.code for finding in guard.findings] == ["CTC901"]
    assert [record["type"] for record in records("run")] == ["finding", "verdict", "end"]


def test_two_models_trained_one_after_the_other_under_one_guard() -> None:
    first, second = Loop(), Loop()
    with watch() as guard:
        for loop in (first, second, first):
            loop.run(6)
    assert guard.findings == []


def test_a_vocabulary_wider_than_the_head_is_said_before_the_first_update() -> None:
    loop = Loop()
    before = loop.weights()
    verdict = verdict_of(loop, vocabulary=CLASSES + 3, run_dir="run")
    assert (verdict.code, verdict.step, verdict.root.phase) == ("CTC101", 0, "setup")
    assert all(torch.equal(a, b) for a, b in zip(before, loop.weights(), strict=True))


def test_a_vocabulary_is_not_judged_when_nobody_knows_whose_it_is() -> None:
    loop = Loop()
    second = torch.nn.Linear(8, 12)
    with watch(vocabulary=CLASSES) as guard:
        for step in range(4):
            batch = loop.batch(step)
            loop.optimizer.zero_grad()
            phonemes = torch.nn.functional.ctc_loss(
                second(batch["features"]).log_softmax(-1), batch["targets"] % 11 + 1, (40,) * 4, (4,) * 4
            )
            (loop.loss(batch) + phonemes).backward()
            loop.optimizer.step()
    assert guard.findings == []


@pytest.mark.parametrize("by", ["loss", "observe"])
def test_a_guard_whose_inner_guard_saw_the_calls_is_not_blind(by: str) -> None:
    log_probs = torch.zeros(20, 1, 4).log_softmax(-1)
    with watch() as outer, watch() as inner:
        if by == "loss":
            torch.nn.functional.ctc_loss(log_probs, torch.tensor([[1, 2]]), (20,), (2,))
        else:
            call = {"targets": [[1, 2]], "input_lengths": [20], "target_lengths": [2], "blank": 0}
            inner.observe(log_probs=log_probs, batch_first=False, **call)
    assert (outer.findings, inner.findings) == ([], [])
    with watch(on_warning="log") as outer, watch(on_warning="log"):
        pass
    assert [finding.code for finding in outer.findings] == ["CTC901"]
