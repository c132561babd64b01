"""The seam changes nothing: bit-equal losses and gradients, and torch as it was afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch.nn.functional import ctc_loss as imported_early

from ctcguard import CTCVerdictError, watch

PRISTINE = torch.ctc_loss


def a_call(dtype: torch.dtype = torch.float32, infeasible: bool = False, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, 3, 7, dtype=dtype, generator=generator).requires_grad_()
    targets = torch.randint(1, 7, (3, 5), generator=generator)
    input_lengths = torch.tensor([30, 24, 4 if infeasible else 17])
    return {
        "logits": logits,
        "targets": targets,
        "input_lengths": input_lengths,
        "target_lengths": torch.tensor([5, 3, 5]),
    }


def loss_and_gradient(call: dict[str, torch.Tensor], **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    logits = call["logits"].detach().clone().requires_grad_()
    loss = F.ctc_loss(logits.log_softmax(-1), call["targets"], call["input_lengths"], call["target_lengths"], **options)
    loss.sum().backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.numpy().tobytes() == right.numpy().tobytes()


@pytest.mark.parametrize("infeasible", [False, True])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bit_equal(dtype: torch.dtype, reduction: str, zero_infinity: bool, infeasible: bool) -> None:
    for seed in range(5):
        call = a_call(dtype, infeasible, seed)
        plain = loss_and_gradient(call, reduction=reduction, zero_infinity=zero_infinity)
        with watch(on_error="log", on_warning="log") as guard:
            guarded = loss_and_gradient(call, reduction=reduction, zero_infinity=zero_infinity)
        assert same_bits(plain[0], guarded[0])
        assert same_bits(plain[1], guarded[1])
        assert bool(guard.findings) == infeasible


def test_bit_equal_twin_can_fail() -> None:
    loss, _ = loss_and_gradient(a_call())
    assert not same_bits(loss, torch.nextafter(loss, loss + 1))


LAYOUTS = {
    "padded": lambda c: c,
    "concatenated": lambda c: c | {"targets": torch.cat([c["targets"][i, :n] for i, n in enumerate((5, 3, 5))])},
    "int32 targets": lambda c: c | {"targets": c["targets"].int()},
    "tuples": lambda c: c | {"input_lengths": (30, 24, 17), "target_lengths": (5, 3, 5)},
    "lists": lambda c: c | {"input_lengths": [30, 24, 17], "target_lengths": [5, 3, 5]},
    "int32 lengths": lambda c: c | {name: c[name].int() for name in ("input_lengths", "target_lengths")},
    "unbatched": lambda c: {
        "logits": c["logits"][:, 0], "targets": c["targets"][0],
        "input_lengths": torch.tensor(30), "target_lengths": torch.tensor(5),
    },
    "unbatched, tuples": lambda c: {
        "logits": c["logits"][:, 0], "targets": c["targets"][0], "input_lengths": (30,), "target_lengths": (5,),
    },
    "blank as padding": lambda c: c | {"targets": torch.cat([c["targets"], torch.zeros(3, 2, dtype=torch.long)], 1)},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_layout_that_torch_takes(layout: str, reduction: str) -> None:
    call = LAYOUTS[layout](a_call())
    plain = loss_and_gradient(call, reduction=reduction)
    with watch() as guard:
        guarded = loss_and_gradient(call, reduction=reduction)
    assert same_bits(plain[0], guarded[0])
    assert same_bits(plain[1], guarded[1])
    assert (guard.guard.calls, guard.findings) == (1, [])


def test_every_road_to_the_loss_is_seen() -> None:
    call = a_call()
    arguments = (call["logits"].log_softmax(-1), call["targets"], call["input_lengths"], call["target_lengths"])
    with watch() as guard:
        torch.nn.CTCLoss()(*arguments)
        F.ctc_loss(*arguments)
        imported_early(*arguments)
        torch.ctc_loss(*arguments, 0, 1, False)
        torch.ctc_loss(
            log_probs=arguments[0], targets=arguments[1], input_lengths=arguments[2], target_lengths=arguments[3]
        )
        assert guard.guard.calls == 5


def test_errors_of_the_loss_itself_stay_the_users() -> None:
    call = a_call()
    with (
        watch(on_error="alert") as guard,
        pytest.raises(RuntimeError, match="Expected input_lengths to have value at most"),
    ):
        loss_and_gradient(call | {"input_lengths": torch.tensor([31, 24, 17])})
    assert [finding.code for finding in guard.findings] == ["CTC302"]


@pytest.mark.parametrize("broken", [
    {"input_lengths": torch.tensor([30, 24])},
    {"targets": torch.zeros(2, 5, dtype=torch.long)},
    {"targets": torch.zeros(1, 2, 3, dtype=torch.long)},
])  # fmt: skip
def test_calls_that_torch_refuses_are_refused_by_torch(broken: dict[str, torch.Tensor]) -> None:
    call = a_call() | broken
    with pytest.raises((RuntimeError, ValueError, IndexError)) as plain:
        loss_and_gradient(call)
    with watch() as guard, pytest.raises(type(plain.value)) as guarded:
        loss_and_gradient(call)
    assert str(guarded.value) == str(plain.value)
    assert {finding.code for finding in guard.findings} <= {"CTC901"}


def test_restored_after_an_exception() -> None:
    with pytest.raises(KeyError), watch():
        raise KeyError
    assert torch.ctc_loss is PRISTINE


def test_restored_after_a_verdict() -> None:
    call = a_call(infeasible=True)
    with pytest.raises(CTCVerdictError), watch():
        loss_and_gradient(call)
    assert torch.ctc_loss is PRISTINE


def test_nested_guards_the_innermost_judges() -> None:
    call = a_call(infeasible=True)
    with watch(on_error="log", run_dir=Path("outer")) as outer:
        with watch(on_error="log", run_dir=Path("inner")) as inner:
            loss_and_gradient(call)
        assert inner.findings
        assert not outer.findings
        loss_and_gradient(call)
        assert outer.findings
        assert torch.ctc_loss is not PRISTINE
    assert torch.ctc_loss is PRISTINE


def test_closed_in_any_order() -> None:
    first, second = watch(run_dir=Path("1")), watch(run_dir=Path("2"))
    first.close()
    loss_and_gradient(a_call())
    assert second.guard.calls == 1
    second.close()
    second.close()
    assert torch.ctc_loss is PRISTINE


def test_another_patch_on_top_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = watch()
    ours = torch.ctc_loss
    monkeypatch.setattr(torch, "ctc_loss", lambda *args, **kwargs: ours(*args, **kwargs))
    theirs = torch.ctc_loss
    loss_and_gradient(a_call())
    guard.close()
    assert torch.ctc_loss is theirs
    loss_and_gradient(a_call())
    assert guard.guard.calls == 1
    monkeypatch.undo()
    torch.ctc_loss = PRISTINE


def test_threads_each_with_a_guard_of_its_own() -> None:
    calls: dict[int, int] = {}
    barrier = threading.Barrier(2, timeout=30)

    def train(number: int) -> None:
        with watch(run_dir=Path(str(number))) as guard:
            barrier.wait()
            for _ in range(number):
                loss_and_gradient(a_call())
            barrier.wait()
            calls[number] = guard.guard.calls

    threads = [threading.Thread(target=train, args=(number,)) for number in (2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert calls == {2: 2, 5: 5}
    assert torch.ctc_loss is PRISTINE


def test_a_thread_without_a_guard_is_seen_by_the_one_there_is() -> None:
    with watch() as guard:
        thread = threading.Thread(target=loss_and_gradient, args=(a_call(),))
        thread.start()
        thread.join(60)
        assert guard.guard.calls == 1


def test_decorators() -> None:
    @watch
    def bare() -> bool:
        return torch.ctc_loss is PRISTINE

    @watch(on_error="log", run_dir=Path("decorated"))
    def with_settings(call: dict[str, torch.Tensor]) -> str:
        """Trains."""
        loss_and_gradient(call)
        return "done"

    assert torch.ctc_loss is PRISTINE
    assert bare() is False
    assert with_settings(a_call(infeasible=True)) == "done"
    assert with_settings.__doc__ == "Trains."
    assert Path("decorated/findings.jsonl").read_text().count('"CTC301"') >= 1
    assert torch.ctc_loss is PRISTINE


def test_random_numbers_are_not_drawn() -> None:
    call = a_call()
    torch.manual_seed(7)
    plain = torch.rand(3)
    torch.manual_seed(7)
    with watch():
        loss_and_gradient(call)
    assert torch.equal(torch.rand(3), plain)


def test_arguments_are_not_written_to() -> None:
    call = a_call()
    before = {name: value.clone() for name, value in call.items()}
    with watch():
        loss_and_gradient(call)
    assert all(torch.equal(call[name], before[name]) for name in call)


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo looks at .grad of non-leaf tensors
def test_under_torch_compile_every_call_is_seen_and_no_graph_break_is_added() -> None:
    from torch._dynamo.utils import counters

    def step(call: dict[str, torch.Tensor]) -> torch.Tensor:
        log_probs = (call["logits"] * 2).log_softmax(-1)
        return F.ctc_loss(log_probs, call["targets"], call["input_lengths"], call["target_lengths"]) * 2

    def breaks(guarded: bool) -> tuple[int, int, torch.Tensor]:
        torch.compiler.reset()
        counters.clear()
        compiled = torch.compile(step, backend="eager")
        guard = watch() if guarded else None
        for seed in range(3):
            loss = compiled(a_call(seed=seed))
        if guard is not None:
            guard.close()
        return sum(counters["graph_break"].values()), guard.guard.calls if guard else 0, loss

    plain, guarded = breaks(False), breaks(True)
    assert guarded[0] <= plain[0]
    assert guarded[1] == 3
    assert same_bits(plain[2].detach(), guarded[2].detach())


def test_what_torch_cannot_do_itself_fails_with_torchs_own_error() -> None:
    call = a_call()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.ctc_loss(logits.log_softmax(-1), call["targets"], (30, 24, 17), (5, 3, 5))

    with pytest.raises(RuntimeError) as plain:
        torch.func.grad(loss)(call["logits"].detach())
    with watch() as guard, pytest.raises(RuntimeError) as guarded:
        torch.func.grad(loss)(call["logits"].detach())
    assert str(guarded.value) == str(plain.value)
    assert {finding.code for finding in guard.findings} == {"CTC901"}


def test_fake_tensors_fail_with_torchs_own_error() -> None:
    from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

    with watch() as guard, FakeTensorMode(), pytest.raises(DynamicOutputShapeException):
        F.ctc_loss(torch.zeros(30, 2, 7).log_softmax(-1), torch.ones(2, 5, dtype=torch.long), (30, 30), (5, 5))
    assert {finding.code for finding in guard.findings} == {"CTC901"}
