"""CTC205."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

import ctcguard
from ctcguard import watch
from ctcguard.finding import Finding

LETTERS = {"a": 0, "b": 1, "c": 2, "d": 3, "<pad>": 4}


def found(given: list[list[int]], vocabulary: Any = None, blank: int = 0) -> Finding | None:
    labels = np.asarray(given)
    kept = [[x for x in row if x not in (-100, blank)] for row in given]
    call = {"targets": np.concatenate(kept), "target_lengths": [len(row) for row in kept], "blank": blank}
    call |= {"log_probs": np.log(np.full((len(given), 20, 5), 0.2)), "input_lengths": [20] * len(given)}
    verdicts = ctcguard.diagnose(given_labels=labels, vocabulary=vocabulary, **call)
    return next((f for v in verdicts for f in v.findings() if f.code == "CTC205"), None)


@pytest.mark.parametrize(
    "given",
    [
        [[1, 2, 3, -100]],
        [[1, 2, 0, 0]],  # padded with the blank, as the docstring of transformers allows
        [[0, 0, 1, 2]],  # padded on the left
        [[0, 0, 0, 0], [1, 2, 3, 1]],  # an empty transcript
    ],
)
def test_padding_is_no_label(given: list[list[int]]) -> None:
    assert found(given) is None


@pytest.mark.parametrize(
    ("vocabulary", "cause", "fix"),
    [
        (None, "blank-is-a-letter", "pad_token_id = tokenizer.pad_token_id"),
        (LETTERS, "blank-is-a-letter", "pad_token_id = 4 (the padding of the tokenizer)"),
        (["<pad>", *"bcde"], "blank-in-labels", "insert no blanks"),
    ],
)
def test_causes(vocabulary: Any, cause: str, fix: str) -> None:
    finding = found([[1, 0, 2, 0, 3], [1, 2, 3, -100, -100]], vocabulary)
    assert finding is not None
    assert (finding.cause, finding.severity) == (cause, "error")
    assert fix in finding.fix
    assert "2 of 8 labels (25%)" in finding.message
    assert [utterance.index for utterance in finding.utterances] == [0]


@pytest.mark.parametrize(("pad", "codes"), [(4, []), (0, ["CTC205"])])
def test_a_real_model_of_transformers(pad: int, codes: list[str]) -> None:
    """With the default padding, 0, every "a" is removed before the loss."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    options = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "ctc_loss_reduction": "mean"}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=5, pad_token_id=pad, **sizes, **convolutions, **options))
    labels = torch.tensor([[2, 0, 3, 0, 1], [1, 0, 3, -100, -100]])
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        model(input_values=torch.randn(2, 2000), labels=labels).loss.backward()
    assert [verdict.code for verdict in guard.verdicts] == codes
