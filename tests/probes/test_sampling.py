"""What is read of wide and long calls: bounded, spread, and never beyond the lengths."""

from __future__ import annotations

import numpy as np
import pytest

from ctcguard.call import ctc_call
from ctcguard.probes.log_probs import EVIDENCE_VALUES, SAMPLED_VALUES, frame_maxima, normalisation, other_axes


class Counting(np.ndarray):
    """Remembers the largest array that a function was applied to."""

    largest = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):  # type: ignore[no-untyped-def]
        if ufunc is np.exp:
            Counting.largest = max(Counting.largest, *(np.size(value) for value in inputs))
        plain = [value.view(np.ndarray) if isinstance(value, Counting) else value for value in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        return result.view(Counting) if isinstance(result, np.ndarray) else result


def of_shape(batch: int, frames: int, classes: int) -> dict[str, object]:
    scores = np.zeros((batch, frames, classes), np.float32).view(Counting)
    lengths = {"input_lengths": np.full(batch, frames), "target_lengths": np.ones(batch, int)}
    return {"log_probs": scores, "targets": np.ones((batch, 1), int), "blank": 0, **lengths}


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (4, 50, 32), (64, 900, 32), (3, 40, 70_000), (300, 10, 5000), (1, 20_000, 8)]
)
def test_exponentials_are_bounded(shape: tuple[int, int, int]) -> None:
    call = ctc_call(**of_shape(*shape))
    for probe, bound in (
        (normalisation, SAMPLED_VALUES + 2 * shape[2]),
        (other_axes, 2 * EVIDENCE_VALUES + max(shape)),
    ):
        Counting.largest = 0
        probe(call)
        assert 0 < Counting.largest <= bound


def test_the_first_frame_of_every_sampled_utterance_is_read() -> None:
    values = of_shape(8, 3000, 40)
    values["log_probs"][5, 0] = 7.0  # type: ignore[index]
    values["input_lengths"][5] = 1  # type: ignore[index]
    assert normalisation(ctc_call(**values))["sample_max"] == 7


def test_every_frame_counts_for_the_maxima() -> None:
    values = of_shape(8, 3000, 40)
    values["log_probs"][5, 2999, 3] = 7.0  # type: ignore[index]
    assert frame_maxima(ctc_call(**values))["score_max"].tolist() == [0, 0, 0, 0, 0, 7, 0, 0]
