"""CTC105."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer

import ctcguard
from ctcguard import watch
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.unknown_flood import UnknownFlood
from ctcguard.vocabulary import Vocabulary

UPPER = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: 3 + i for i, letter in enumerate("ABCDEFGH")}}
NO_SPACE = {symbol: i for i, symbol in enumerate(["<pad>", "<unk>", *"abcdefgh"])}


def found(rows: list[list[int]], vocabulary: Any) -> Finding | None:
    lengths = [len(row) for row in rows]
    targets = np.asarray([[*row, *[0] * (max(lengths) - len(row))] for row in rows])
    batch = len(rows)
    call = {"targets": targets, "input_lengths": [200] * batch, "target_lengths": lengths, "blank": 0}
    log_probs = np.log(np.full((batch, 200, 12), 1 / 12))
    verdicts = ctcguard.diagnose(log_probs=log_probs, vocabulary=vocabulary, **call)
    return next((f for v in verdicts for f in v.findings() if f.code == "CTC105"), None)


def tokenizer(tmp_path: Any, symbols: dict[str, int], **options: Any) -> Any:
    import json

    (tmp_path / "vocab.json").write_text(json.dumps(symbols))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "word_delimiter_token": "|"}
    return Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), bos_token=None, eos_token=None, **{**names, **options})


@pytest.mark.parametrize("unknown", [0, 1, 4])
def test_some_unknown_labels_are_healthy(unknown: int) -> None:
    row = [1] * unknown + [3, 4, 5, 6, 7] * 8
    assert found([row], UPPER) is None


def test_few_labels_say_nothing() -> None:
    assert found([[1, 1, 1, 1]], UPPER) is None


def test_without_an_unknown_symbol_there_is_nothing_to_count() -> None:
    assert found([[1] * 30], ["<pad>", *"abcdefghijk"]) is None


@pytest.mark.parametrize(
    ("row", "vocabulary", "cause", "fix"),
    [
        ([1] * 30, UPPER, "letter-case", "text.upper()"),
        ([1, 1, 2, 1, 1, 1] * 5, NO_SPACE, "letter-case", "text.lower()"),
        ([3, 1, 1, 1, 4] * 6, UPPER, "wrong-alphabet", "from the training transcripts"),
        ([1] * 30, {"<pad>": 0, "<unk>": 1, "a": 2, "B": 3}, "wrong-alphabet", "from the training transcripts"),
    ],
)
def test_causes(row: list[int], vocabulary: Any, cause: str, fix: str) -> None:
    finding = found([row, row], vocabulary)
    assert finding is not None
    assert (finding.cause, finding.severity) == (cause, Severity.ERROR)
    assert fix in finding.fix
    assert "1 '<unk>'" in finding.message


def history(share: float, calls: int) -> Readings:
    columns = {
        "target_lengths": np.asarray([10.0]),
        "unknown_labels": np.asarray([1.0]),
        "unknown_runs": np.asarray([1.0]),
        "unknown_first": np.asarray([0.0]),
        "unknown_last": np.asarray([0.0]),
    }
    known = {"vocabulary": Vocabulary.of(UPPER), "history": {"unknown_fraction": np.full(calls, share)}}
    return Readings({**columns, **known})


@pytest.mark.parametrize(("share", "calls", "fires"), [(0.2, 16, True), (0.2, 15, False), (0.09, 40, False)])
def test_a_share_that_lasts_is_a_warning(share: float, calls: int, fires: bool) -> None:
    finding = UnknownFlood().check(history(share, calls))
    assert (finding is not None) is fires
    assert finding is None or finding.severity is Severity.WARNING
    assert finding is None or "20% of the labels" in finding.message


@pytest.mark.parametrize(("often", "fires"), [(9, False), (10, True)])
def test_a_share_is_above_the_limit_by_three_standard_errors(often: int, fires: bool) -> None:
    """Of 16 calls, half of the labels in so many of them: 28% and 31% of all, ±6%."""
    shares = np.asarray([0.5] * often + [0.0] * (16 - often))
    readings = Readings({**history(0.0, 16), "history": {"unknown_fraction": shares}})
    assert (UnknownFlood().check(readings) is not None) is fires


@pytest.mark.parametrize("utterances", [15, 16, 200])
def test_rare_symbols_in_batches_of_any_size(utterances: int) -> None:
    """Seven labels in a hundred: more than a tenth of a batch, now and then."""
    random = np.random.default_rng(0)
    past: list[float] = []
    for call in range(1, 200):
        unknown = random.binomial(14, 0.07, utterances).astype(float)
        columns = {f"unknown_{name}": unknown for name in ("labels", "runs", "first", "last")}
        past.append(float(unknown.mean()) / 14)
        known = {"vocabulary": Vocabulary.of(UPPER), "target_lengths": np.full(utterances, 14.0)}
        known |= {"history": {"unknown_fraction": np.asarray(past)}} if call % 16 == 0 else {}
        assert UnknownFlood().check(Readings({**columns, **known})) is None


def test_a_missing_space_in_a_large_batch() -> None:
    assert found([[2, 3, 1, 4, 5, 6, 1, 7, 8]] * 20, NO_SPACE) is None
    finding = found([[2, 3, 1, 4, 5, 6, 1, 7, 8]] * 24, NO_SPACE)
    assert finding is not None
    assert (finding.cause, finding.severity) == ("missing-delimiter", Severity.WARNING)
    assert "word_delimiter_token" in finding.fix


def test_a_tokenizer_that_upper_cases_in_a_real_loop(tmp_path: Any) -> None:
    """``do_lower_case=True`` writes UPPER case: every letter of a lower-case vocabulary is unknown."""
    lower = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: 3 + i for i, letter in enumerate("abcdefgh")}}
    text = "bad bed cab fed head bag"
    for name, lower_cases in (("fixed", False), ("broken", True)):
        (tmp_path / name).mkdir()
        made = tokenizer(tmp_path / name, lower, do_lower_case=lower_cases)
        labels = torch.tensor([made(text).input_ids])
        scores = torch.randn(120, 1, 11, requires_grad=True).log_softmax(-1)
        with watch(vocabulary=made, on_error="log", on_warning="log", sinks=()) as guard:
            torch.nn.functional.ctc_loss(scores, labels, (120,), (labels.shape[1],))
        verdicts = [(verdict.code, verdict.cause) for verdict in guard.verdicts]
        assert verdicts == ([("CTC105", "letter-case")] if lower_cases else [])
