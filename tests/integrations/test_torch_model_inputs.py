"""Inputs made again in other forms, and what the graph below log-probs tells."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from ctcguard_integrations.torch_model_graph import Graph, graph_of
from ctcguard_integrations.torch_model_inputs import Inputs, UnsuitableError
from ctcguard_integrations.torch_model_trees import lists, rebuilt, tensors

LENGTHS = [10, 6, 8, 4]
OTHERS = [0, 0, 2, 2]


def features(*shape: int) -> Tensor:
    """Each row and frame its own number; frames of padding are -1."""
    x = torch.arange(4 * 10, dtype=torch.float32).reshape(4, 10, 1).repeat(1, 1, 3)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = -1
    return x


def inputs(*args: Any, frames: int = 10, valid: list[int] | None = None, **kwargs: Any) -> Inputs:
    return Inputs((args, kwargs), 4, frames, np.asarray(valid or LENGTHS, float))


def test_rows_are_copies_of_the_utterances_wanted() -> None:
    x, names = features(), ["a", "b", "c", "d"]
    (made, lengths), kwargs = inputs(x, torch.tensor(LENGTHS), names=names, beam=4).rows(OTHERS)
    assert torch.equal(made, x[OTHERS])
    assert lengths.tolist() == [10, 10, 8, 8]
    assert kwargs == {"names": ["a", "a", "c", "c"], "beam": 4}
    made.zero_()
    assert float(x.abs().sum()) > 0
    ((same, _), _) = inputs(x, torch.tensor(LENGTHS)).rows(range(4))
    assert torch.equal(same, x)
    assert same.data_ptr() != x.data_ptr()


def test_padding_is_more_of_what_is_there() -> None:
    ((made, lengths), _) = inputs(features(), torch.tensor(LENGTHS)).rows(range(4), 3)
    assert made.shape == (4, 13, 3)
    assert bool((made[:, 10:] == -1).all())
    assert lengths.tolist() == LENGTHS


def test_without_any_padding_it_is_zero() -> None:
    given = inputs(features(), torch.tensor([10] * 4), valid=[10] * 4)
    assert given.told
    assert given.knows_padding
    ((made, _), _) = given.rows(range(4), 3)
    assert bool((made[:, 10:] == 0).all())


@pytest.mark.parametrize(
    ("mask", "filled"),
    [
        (torch.arange(10) < torch.tensor(LENGTHS)[:, None], False),
        (torch.arange(10) >= torch.tensor(LENGTHS)[:, None], True),
        ((torch.arange(10) < torch.tensor(LENGTHS)[:, None]).long(), 0),
        ((torch.arange(10) >= torch.tensor(LENGTHS)[:, None]).float() * -1e9, -1e9),
        (torch.ones(4, 10, dtype=torch.bool), False),
        (torch.zeros(4, 10, dtype=torch.bool), True),
        (torch.ones(4, 10), 0.0),
        (torch.zeros(4, 10, dtype=torch.long), 1),
    ],
)
def test_masks_go_on_as_they_end(mask: Tensor, filled: Any) -> None:
    ((_, made), _) = inputs(features(), mask).rows(range(4), 3)
    assert made.shape == (4, 13)
    assert made.dtype == mask.dtype
    assert torch.equal(made[:, :10], mask)
    assert made[:, 10:].unique().tolist() == [filled]


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(4, 10), torch.ones(4, 10, 10), torch.ones(4, 1, 10, 10, dtype=torch.bool)],
    ids=["zeros", "two times", "heads"],
)
def test_masks_that_cannot_be_continued(mask: Tensor) -> None:
    given = inputs(features(), mask)
    given.rows(OTHERS)
    with pytest.raises(UnsuitableError, match="mask"):
        given.rows(range(4), 3)


def test_fractions_of_the_time_axis_stay_the_same_lengths() -> None:
    fractions = torch.tensor(LENGTHS) / 10
    given = inputs(features(), fractions)
    extra = given.extra(10, 3)
    assert extra == 10  # a power of 2 times the width in all
    ((made, scaled), _) = given.rows(range(4), extra)
    assert (scaled * made.shape[1]).tolist() == [10, 6, 8, 4]
    assert given.extra(10, 11) == 30
    ((_, same), _) = given.rows(range(4))
    assert torch.equal(same, fractions)
    with pytest.raises(UnsuitableError, match="may be lengths or not"):
        inputs(features(), torch.ones(4), valid=[10] * 4).rows(range(4), 10)


@pytest.mark.parametrize(
    ("shape", "frames", "extra"),
    [((4, 10, 3), 10, 4), ((4, 96, 3), 24, 32), ((4, 16000, 3), 49, 1024), ((4, 7, 3), 7, 3)],
)
def test_how_much_is_appended(shape: tuple[int, ...], frames: int, extra: int) -> None:
    assert inputs(torch.randn(shape), frames=frames, valid=[frames, 3, 2, 1]).extra(frames, 3) == extra


@pytest.mark.parametrize(
    ("shape", "given", "width"),
    [
        ((4, 10, 80), (), 10),  # as many as there are frames
        ((4, 80, 20), (), 80),
        ((4, 80, 20), (torch.tensor([20, 19, 18, 17]),), 20),
        ((4, 80, 20), ([20, 19, 18, 17],), 20),
        ((4, 80, 20), (torch.ones(4, 20, dtype=torch.bool),), 20),
        ((20, 4, 80), (torch.tensor([20, 19, 18, 17]),), 20),
        ((4, 1, 32, 100), (), 100),
        ((4, 400), (), 400),
    ],
)
def test_the_time_axis(shape: tuple[int, ...], given: tuple[Any, ...], width: int) -> None:
    assert inputs(torch.randn(shape), *given).width == width


def test_time_first() -> None:
    x = torch.randn(10, 4, 3)
    ((made,), _) = inputs(x).rows(OTHERS, 2)
    assert made.shape == (12, 4, 3)
    assert torch.equal(made[:10], x[:, OTHERS])


class Named(NamedTuple):
    x: Tensor
    other: dict[str, Any]


def test_containers_of_every_kind() -> None:
    given = Named(features(), {"pair": (torch.arange(4), [1, 2, 3, 4]), "array": np.arange(4)})
    ((made,), _) = inputs(given).rows(OTHERS)
    assert isinstance(made, Named)
    assert made.other["pair"][0].tolist() == [0, 0, 2, 2]
    assert made.other["pair"][1] == [1, 1, 3, 3]
    assert made.other["array"].tolist() == [0, 0, 2, 2]
    assert given.other["pair"][1] == [1, 2, 3, 4]


def test_a_batch_of_two_is_no_pair() -> None:
    x, lengths = torch.randn(2, 10, 3), torch.tensor([10, 4])
    given = Inputs((((x, lengths),), {}), 2, 10, np.asarray([10.0, 4.0]))
    (((made, kept),), _) = given.rows([0, 0])
    assert torch.equal(made, x[[0, 0]])
    assert kept.tolist() == [10, 10]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((torch.arange(40).reshape(4, 10),), "no features with a batch axis of 4"),
        ((torch.randn(5, 10, 3),), "no features with a batch axis of 4"),
        ((torch.randn(4, 4, 3),), "cannot be told apart"),
        ((torch.randn(4, 10, 3), object()), "it was given a object"),
        ((pack_sequence([torch.randn(3, 2)] * 4),), "it was given a PackedSequence"),
        ((torch.randn(4, 10, 3), {1, 2}), "it was given a set"),
    ],
)
def test_what_is_not_understood_is_left_alone(args: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(UnsuitableError, match=reason):
        inputs(*args)


def test_trees() -> None:
    tree = {"a": [torch.zeros(1), (1, "b")], "c": [1, 2]}
    assert [tensor.shape for tensor in tensors(tree)] == [(1,)]
    assert list(lists(tree)) == [[1, "b"], [1, 2]]
    assert rebuilt({"c": (1, 2)}, lambda leaf: leaf + 1, lambda items: items[::-1]) == {"c": (3, 2)}


# What the autograd graph tells.


def walked(change: Any, batch: int = 4) -> Graph:
    torch.manual_seed(0)
    x = torch.randn(4, 50, 20, requires_grad=True) * 2
    return graph_of(nn.Linear(20, 5)(change(x)).log_softmax(-1), batch)


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (lambda x: x.view(50, 4, 20), (4, 50, 20), (50, 4, 20)),
        (lambda x: x.reshape(50, 4, 20).tanh(), (4, 50, 20), (50, 4, 20)),
        (lambda x: x.transpose(1, 2).transpose(1, 2).reshape(50, -1, 20), (4, 50, 20), (50, 4, 20)),
        (lambda x: x.transpose(0, 1).reshape(4, 50, 20), (50, 4, 20), (4, 50, 20)),
        (lambda x: x.flatten(0, 1).tanh().view(50, 4, 20), (4, 50, 20), (50, 4, 20)),
    ],
)
def test_reshapes_that_swap_batch_and_time(change: Any, before: Any, after: Any) -> None:
    assert walked(change).swap == (before, after)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(1, 0, 2).contiguous(),
        lambda x: x.flatten(0, 1).tanh().unflatten(0, (4, 50)),
        lambda x: x.transpose(0, 1).flatten(0, 1).tanh().view(50, 4, 20),
        lambda x: x.view(4, 50, 2, 10).transpose(1, 2).reshape(4, 50, 20),
        lambda x: x.reshape(4, 20, 50).transpose(1, 2),
        lambda x: x.reshape(100, 2, 20),
    ],
)
def test_other_reshapes_are_nobodys_business(change: Any) -> None:
    assert walked(change).swap is None


def test_the_graph_knows_what_made_the_scores() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    hidden, other = first(torch.randn(2, 3)), second(torch.randn(2, 3))
    nodes = graph_of(hidden.exp(), 2).nodes
    assert hidden.grad_fn is not None
    assert other.grad_fn is not None
    assert hidden.grad_fn._sequence_nr() in nodes
    assert other.grad_fn._sequence_nr() not in nodes
    assert graph_of(hidden.detach(), 2) == (frozenset(), None)
