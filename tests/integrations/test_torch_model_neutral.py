"""The passes of the model probe leave no trace: losses, weights, buffers, flags, random numbers and hooks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ctcguard import watch
from ctcguard_integrations.torch_model_state import Kept, aside
from tests.integrations.recognisers import Loop, Plain, Recurrent, Transformer

Layer = Callable[[nn.Linear], nn.Module]


class Old(nn.Module):
    """Weight norm or spectral norm by hooks, as before parametrizations."""

    def __init__(self, norm: Layer) -> None:
        super().__init__()
        self.layer = norm(nn.Linear(16, 16))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = self.layer(x)
        return made


class Masks(nn.Module):
    """SpecAugment with numpy's random numbers, LayerDrop with torch's and Python's, as models of transformers do it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.training:
            x = x * torch.from_numpy(np.random.rand(len(x), x.shape[1], 1) > 0.2)
        for layer in self.layers:
            drop = float(torch.rand([])) < 0.3 or random.random() < 0.1  # drawn in evaluation too
            x = x if self.training and drop else torch.tanh(layer(x))
        return x


class Remembers(nn.Module):
    """State of every kind, changed by every call in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.kept, self.table = 0, [1], {"last": torch.zeros(16)}
        self.plain = torch.zeros(16)
        self.numbers = torch.Generator().manual_seed(5)
        self.dice, self.numpy, self.legacy = random.Random(4), np.random.default_rng(4), np.random.RandomState(4)
        self.register_buffer("replaced", torch.zeros(16))
        self.register_buffer("added_to", torch.zeros(16))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.calls += 1
        self.kept.append(self.calls)
        self.table["last"] = self.plain.clone()
        self.plain += 0.01
        self.replaced = self.replaced + 0.01
        self.added_to.add_(0.01)
        self.late = x.shape
        drawn = self.dice.random() + float(self.numpy.random()) + float(self.legacy.rand())
        noise = torch.randn(16, generator=self.numbers) * 0.01 + drawn * 0.01
        return x + self.plain + self.replaced + self.added_to + self.table["last"] + noise + 0.01 * len(self.kept)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.3), nn.Tanh())
        self.reentrant = reentrant

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = checkpoint(self.layer, x, use_reentrant=self.reentrant)
        return made


class Frozen(nn.Module):
    """Half of it is in eval mode for good, and half of that without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(16).eval(), nn.Dropout(0.5).eval()
        self.layer = nn.Linear(16, 16).requires_grad_(False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = self.layer(self.drop(self.norm(x.transpose(1, 2)).transpose(1, 2)))
        return made


class Autocast(nn.Module):
    """Switches autocast on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made: Tensor = self.layer(x)
        return made.float()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "dropout, BatchNorm, BiLSTM": Recurrent,
    "transformer with dropout": Transformer,
    "weight norm": lambda: Plain(Old(nn.utils.parametrizations.weight_norm)),
    "weight norm by hooks": lambda: Plain(Old(nn.utils.weight_norm)),
    "spectral norm": lambda: Plain(Old(nn.utils.parametrizations.spectral_norm)),
    "spectral norm by hooks": lambda: Plain(Old(nn.utils.spectral_norm)),
    "SpecAugment and LayerDrop": lambda: Plain(Masks()),
    "state of every kind": lambda: Plain(Remembers()),
    "checkpointed": lambda: Plain(Checkpointed(reentrant=False)),
    "checkpointed, reentrant": lambda: Plain(Checkpointed(reentrant=True)),
    "in part frozen": lambda: Plain(Frozen()),
    "noisy": lambda: Plain(lambda x, lengths: nn.functional.dropout(x, 0.2)),
    "autocast inside": lambda: Plain(Autocast()),
}
Step = Callable[[Loop], None]


def twice(loop: Loop) -> None:
    loop.step(accumulate=2)


def in_autocast(loop: Loop) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loop.step(accumulate=2)


def scaled(loop: Loop) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    loop.optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loop.loss()
    scaler.scale(loss).backward()
    scaler.step(loop.optimizer)
    loop.losses.append(float(loss.detach()))


STEPS: dict[str, Step] = {
    "plain": Loop.step, "accumulation": twice, "autocast and accumulation": in_autocast, "scaler": scaled,
}  # fmt: skip


def numbers() -> list[float]:
    """What the three sources of random numbers give next."""
    return [float(torch.rand([])), random.random(), float(np.random.rand())]


def everything(model: nn.Module) -> dict[str, Any]:
    """Weights, buffers, gradients, flags, hooks and plain attributes."""
    state: dict[str, Any] = {name: value.clone() for name, value in model.state_dict().items()}
    for name, weight in model.named_parameters():
        state[f"gradient of {name}"] = None if weight.grad is None else weight.grad.clone()
        state[f"flag of {name}"] = weight.requires_grad
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | torch.Tensor)}
        plain |= {key: len(value) for key, value in vars(module).items() if isinstance(value, list)}
        hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        state |= {f"{name} {key}": value for key, value in {**plain, **hooks, "names": list(vars(module))}.items()}
    return state


def trained(make: Callable[[], nn.Module], step: Step, guarded: bool) -> tuple[list[float], dict[str, Any], str]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    loop = Loop(make(), seed=1, subsampling=2 if make is Recurrent else 1)
    said = ""
    if guarded:
        with watch(probe_model=True, on_error="log", on_warning="log") as guard:
            for _ in range(4):
                step(loop)
        said = guard.guard.end_fields["probe_model"]
        assert not [finding for finding in guard.findings if finding.code == "CTC902"]
    else:
        for _ in range(4):
            step(loop)
    return loop.losses + numbers(), everything(loop.model), said


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*of the inputs have requires_grad.*")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_training_goes_on_bit_for_bit(model: str, step: str) -> None:
    losses, state, _ = trained(MODELS[model], STEPS[step], guarded=False)
    guarded_losses, guarded_state, said = trained(MODELS[model], STEPS[step], guarded=True)
    assert " ran " in said
    assert guarded_losses == losses
    assert guarded_state.keys() == state.keys()
    for name, value in state.items():
        other = guarded_state[name]
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same, name


def test_twin_a_pass_that_is_not_put_back_would_be_seen() -> None:
    def with_a_pass(loop: Loop) -> None:
        if not loop.losses:
            with torch.no_grad():
                loop.model(torch.randn(4, 40, 8), torch.tensor([40] * 4))
        loop.step()

    for make in (Recurrent, MODELS["SpecAugment and LayerDrop"], MODELS["state of every kind"]):
        assert trained(make, with_a_pass, guarded=False)[0] != trained(make, STEPS["plain"], guarded=False)[0]


def test_restored_when_the_model_fails() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(16)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            if not self.training:
                self.norm.train()
                self.norm(x.transpose(1, 2))
                torch.rand(3)
                raise KeyError("only for training")
            made: Tensor = self.norm(x.transpose(1, 2)).transpose(1, 2)
            return made

    losses, state, _ = trained(lambda: Plain(Fails()), Loop.step, guarded=False)
    guarded, other, said = trained(lambda: Plain(Fails()), Loop.step, guarded=True)
    assert said == "Plain not run: KeyError: 'only for training'"
    assert guarded == losses
    assert all(torch.equal(value, other[name]) for name, value in state.items() if isinstance(value, Tensor))


def test_a_module_of_no_model_is_put_back_too() -> None:
    outside = nn.BatchNorm1d(16)

    def normal(x: Tensor, lengths: Tensor) -> Tensor:
        made: Tensor = outside(x.transpose(1, 2)).transpose(1, 2)
        return made

    counts = []
    for guarded in (False, True):
        outside.reset_running_stats()
        trained(lambda: Plain(normal), Loop.step, guarded)
        counts.append((int(outside.num_batches_tracked or 0), outside.running_mean.clone(), outside.training))  # type: ignore[union-attr]
    assert counts[0][0] == counts[1][0] == 4
    assert torch.equal(counts[0][1], counts[1][1])
    assert counts[0][2] is counts[1][2] is True


def test_what_autograd_saved_does_not_count_as_changed() -> None:
    module = nn.Module()
    module.register_buffer("scale", torch.ones(3))
    weight = torch.ones(3, requires_grad=True)
    loss = (weight * module.scale).sum()
    kept = Kept()
    kept.add(module)
    module.scale.data.mul_(2)
    kept.restore()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [1, 1, 1]


def test_the_users_own_eval_is_not_called() -> None:
    """It may do more than set a flag, for instance merge adapters into the weights."""

    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            raise AssertionError("called")

    model = nn.Sequential(Merging(3, 3), nn.Dropout())
    model[1].train(False)
    with aside(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]


def test_autocast_goes_on_in_other_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def enabled() -> bool:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.is_autocast_enabled("cpu")

    with ThreadPoolExecutor(1) as pool, aside(nn.Linear(2, 2)):
        assert not enabled()
        assert pool.submit(enabled).result()
    assert enabled()
    assert not torch.is_autocast_enabled("cpu")
