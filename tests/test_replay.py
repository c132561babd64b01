"""A recorded call, judged again on numpy alone, beside what its loss must be."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from ctcguard import ctc_call
from ctcguard.cli import main
from ctcguard.guard import Guard
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure
from ctcguard.provenance import Provenance, Step
from ctcguard.record import Record, read
from ctcguard.replay import Seen, judged_again, replay, utterances
from ctcguard.settings import load

SYMBOLS = ["<pad>", "|", *"abcdefg"]
BATCH, FRAMES, CLASSES = 3, 40, 9
TARGETS = np.asarray([[2, 3, 1, 4, 4], [5, 6, 7, 8, 2], [3, 3, 2, 1, 8]])
LOGITS = np.random.default_rng(0).normal(size=(BATCH, FRAMES, CLASSES)).astype(np.float32) * 2


def log_softmax(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).log_softmax(-1).numpy()


def right(log_probs: np.ndarray, **changes: Any) -> np.ndarray:
    """What torch returns for these log-probs in float64, (batch,)."""
    given = {"targets": TARGETS, "input_lengths": [40, 33, 21], "target_lengths": [5, 4, 3]} | changes
    arrays = {name: torch.as_tensor(np.asarray(values)) for name, values in given.items()}
    scores = torch.from_numpy(log_probs.astype(np.float64)).transpose(0, 1)
    return torch.nn.functional.ctc_loss(scores, **arrays, reduction="none").numpy()


def recorded(run_dir: str = "run", vocabulary: Any = SYMBOLS, settings: Any = None, **changes: Any) -> Record:
    """The record that a guard makes of one call, its losses those of torch unless given."""
    given = {"targets": TARGETS, "input_lengths": [40, 33, 21], "target_lengths": [5, 4, 3], "blank": 0, **changes}
    if "log_probs" not in given and "logits" not in given:
        given["log_probs"] = log_softmax(LOGITS)
    if "losses" not in given:
        scores = given["log_probs"] if "log_probs" in given else log_softmax(given["logits"])
        names = ("targets", "input_lengths", "target_lengths")
        given["losses"] = right(scores, **{name: given[name] for name in names})
    options = {"sinks": ("jsonl",), "on_error": "log", "on_warning": "log", "run_dir": Path(run_dir)} | (settings or {})
    guard = Guard(load(vocabulary=vocabulary, **options))
    guard.record()
    case = guard.open(ctc_call(framework="numpy", source="test", **given), "train", early=False)
    guard.judge(case, *measure(case.call.with_losses(case.call.losses), (*CONTRACT, *DISTRIBUTION)))
    guard.close()
    (path,) = Path(run_dir).glob("*.safetensors")
    return read(path)


def causes(verdicts: Any) -> list[tuple[str, str]]:
    return [(verdict.code, verdict.cause) for verdict in verdicts]


def seen(record: Record) -> list[Seen]:
    return list(utterances(record, [verdict.root for verdict in judged_again(record).verdicts]))


def printed(path: Path, width: int = 120) -> tuple[int, str]:
    out = StringIO()
    code = replay(path, Console(file=out, width=width, highlight=False))
    return code, out.getvalue()


def path_of(folder: str = "run") -> Path:
    (path,) = Path(folder).glob("*.safetensors")
    return path


with_blank = np.where(np.arange(5) == 1, 0, TARGETS)
with_padding = np.where(np.arange(5)[None] < np.asarray([[5], [3], [2]]), TARGETS, -100)
TWICE = Provenance(
    (
        Step("softmax", axis=2, class_axis=2, shape=(3, 40, 9), dtype="float32"),
        Step("log_softmax", axis=2, class_axis=2, shape=(3, 40, 9), dtype="float32"),
    ),
    reaches_head=True,
)
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "probabilities": ({"log_probs": np.exp(log_softmax(LOGITS))}, "CTC402 probabilities"),
    "raw logits": ({"log_probs": LOGITS}, "CTC402 raw-logits"),
    "softmax before optax": ({"logits": np.exp(log_softmax(LOGITS))}, "CTC404 softmax-before-loss"),
    "softmax twice": (
        {"log_probs": log_softmax(np.exp(log_softmax(LOGITS))), "provenance": TWICE},
        "CTC404 softmax-before-log-softmax",
    ),
    "a blank among the labels": ({"targets": with_blank}, "CTC203"),
    "too few frames": ({"input_lengths": [40, 33, 3]}, "CTC301"),
    "a NaN": ({"log_probs": np.where(np.arange(9) == 3, np.nan, log_softmax(LOGITS))}, "CTC403"),
    "a label beyond the head": ({"targets": TARGETS + 2, "losses": np.ones(3)}, "CTC201"),
    "a negative label": ({"targets": with_padding, "losses": np.ones(3)}, "CTC202"),
    "a wrong loss": ({"losses": np.asarray([-3.0, 4.0, 5.0])}, "CTC5"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_verdict_is_that_of_the_run(kind: str) -> None:
    changes, expected = BROKEN[kind]
    record = recorded(**changes)
    assert " ".join(causes(record.verdicts)[0]).startswith(expected)
    again = judged_again(record)
    assert causes(again.verdicts) == causes(record.verdicts)
    assert [verdict.ruled_out for verdict in again.verdicts] == [verdict.ruled_out for verdict in record.verdicts]
    assert [f.code for f in again.findings] == [f.code for verdict in record.verdicts for f in verdict.findings()]
    assert again.findings[0].message == record.verdicts[0].root.message
    assert again.findings[0].utterances == record.verdicts[0].root.utterances
    assert again.not_run == ()
    assert printed(path_of())[0] == 3


@pytest.mark.parametrize("scores", ["log_probs", "logits"])
def test_a_healthy_call_stays_healthy(scores: str) -> None:
    record = recorded(**{scores: log_softmax(LOGITS)})
    assert (record.findings, judged_again(record).verdicts) == ((), ())
    code, text = printed(path_of())
    assert code == 0
    assert "no rule fires, as in the run" in text
    assert all(each.agrees() for each in seen(record))


def test_twin_a_verdict_that_differs_is_said() -> None:
    record = recorded(log_probs=np.exp(log_softmax(LOGITS)))
    record.arrays["scores"] = log_softmax(LOGITS)
    record.arrays["losses"] = right(log_softmax(LOGITS))
    assert judged_again(record).verdicts == ()
    assert causes(record.verdicts) == [("CTC402", "probabilities")]


def test_the_thresholds_of_the_run_hold() -> None:
    settings = {"ignore": ("CTC401", "CTC501", "CTC504", "CTC505")}
    record = recorded(log_probs=LOGITS, settings=settings)
    assert [finding.code for finding in judged_again(record).findings] == ["CTC402"]


def test_a_record_without_all_scores_is_judged_by_what_was_measured() -> None:
    probabilities = np.exp(log_softmax(LOGITS))
    recorded("whole", log_probs=probabilities)
    less_mb = (path_of("whole").stat().st_size - 1000) / 1e6
    record = recorded(log_probs=probabilities, settings={"record_mb": less_mb})
    assert not record.is_whole
    assert causes(judged_again(record).verdicts) == [("CTC402", "probabilities")]
    assert 1 <= len(seen(record)) < 3
    assert [each.index for each in seen(record)] == list(record.kept)
    assert "not in the record: scores (record_mb has room for" in printed(path_of())[1]


def test_a_redacted_record_is_judged_too() -> None:
    record = recorded(log_probs=np.exp(log_softmax(LOGITS)), settings={"redact": True})
    assert causes(judged_again(record).verdicts) == [("CTC402", "probabilities")]
    assert seen(record) == []
    assert "not in the record: scores (redact)" in printed(path_of())[1]


def test_what_cannot_be_judged_again_stands() -> None:
    record = recorded(log_probs=np.exp(log_softmax(LOGITS)))
    record.about["findings"][0] |= {"code": "CTC999"}
    del record.about["rules"]["CTC401"]
    again = judged_again(Record(record.about, record.arrays))
    assert "CTC999" in again.not_run


# Each utterance.


def test_an_utterance_beside_its_reference() -> None:
    record = recorded()
    first, second, third = seen(record)
    assert (first.text, second.text, third.text) == ("ab|cc", "defg", "bba")
    assert (first.frames, second.labels, third.repeats) == (40, (5, 6, 7, 8), 1)
    reference = right(log_softmax(LOGITS))
    for each, loss in zip((first, second, third), reference, strict=True):
        assert each.reference == pytest.approx(loss, rel=1e-6)
        assert each.best is not None
        assert each.best.cost > loss
    best = LOGITS[2, :21].argmax(-1)
    merged = [c for i, c in enumerate(best) if (i == 0 or c != best[i - 1]) and c]
    assert list(third.decoded) == merged
    assert [each.repairs for each in seen(record)] == [(), (), ()]


def test_a_loss_that_hides_a_failure_disagrees() -> None:
    losses = right(log_softmax(LOGITS), input_lengths=[40, 33, 3])
    record = recorded(input_lengths=[40, 33, 3], losses=np.where(np.isinf(losses), 0, losses), zero_infinity=True)
    assert [each.agrees() for each in seen(record)] == [True, True, False]
    assert seen(record)[2].reference == np.inf
    text = printed(path_of())[1]
    assert "reference of these scores inf nats: they DISAGREE" in text
    assert "3 labels and 1 repeats need 4" in text


FIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "probabilities": ("after log_softmax instead of softmax", {}),
    "raw logits": ("after log_softmax over the classes", {}),
    "softmax before optax": ("without the softmax before the loss", {}),
    "softmax twice": ("without the first softmax", {}),
}


@pytest.mark.parametrize("kind", FIXED)
def test_a_fix_gives_the_loss_of_the_fixed_program(kind: str) -> None:
    record = recorded(**BROKEN[kind][0])
    for each, loss in zip(seen(record), right(log_softmax(LOGITS)), strict=True):
        (repair,) = each.repairs
        assert repair.words == FIXED[kind][0]
        assert repair.nats == pytest.approx(loss, rel=1e-4)
        assert f"{repair.words} the loss is {repair.nats:.2f} nats" in printed(path_of())[1]


def test_labels_that_do_not_belong_there_are_taken_out() -> None:
    blanks, padding = (
        recorded("blanks", targets=with_blank),
        recorded("padding", targets=with_padding, losses=np.ones(3)),
    )
    for index in range(3):
        counted = with_blank[index, : [5, 4, 3][index]]
        alone = {"targets": [counted[counted != 0]], "input_lengths": [[40, 33, 21][index]]}
        loss = right(log_softmax(LOGITS)[index : index + 1], **alone, target_lengths=[len(alone["targets"][0])])
        (repair,) = seen(blanks)[index].repairs
        assert repair.nats == pytest.approx(loss[0], rel=1e-5)
    short = right(log_softmax(LOGITS), target_lengths=[5, 3, 2])
    assert [each.repairs[0].nats for each in seen(padding)] == pytest.approx(list(short), rel=1e-5)


def test_what_has_no_loss_says_why() -> None:
    record = recorded(targets=TARGETS + 2, losses=np.ones(3))
    assert "no class (0 … 8)" in seen(record)[1].obstacle
    assert seen(record)[1].reference is None
    recorded("long", input_lengths=[40, 33, 50], losses=np.ones(3))
    assert "input length 50 is not in 1 … 40" in printed(path_of("long"))[1]


def test_nothing_to_align_is_no_error() -> None:
    record = recorded(target_lengths=[0, 0, 0])
    assert [each.reference for each in seen(record)] == pytest.approx(
        list(right(log_softmax(LOGITS), target_lengths=[0] * 3))
    )
    nan = recorded("nan", log_probs=np.full((3, 40, 9), np.nan, np.float32), losses=np.full(3, np.nan))
    assert [(each.best, each.agrees()) for each in seen(nan)] == [(None, True)] * 3


# The command.


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    recorded(log_probs=np.exp(log_softmax(LOGITS)))
    assert main(["replay", str(path_of())]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for words in ("CTC402", "the verdict is that of the run", "utterance 2", "'bba'"):
        assert words in out


@pytest.mark.parametrize("name", ["nothing.safetensors", "text.safetensors"])
def test_what_is_no_record_is_misuse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.safetensors").write_text("no record")
    assert main(["replay", name]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_framework_is_loaded() -> None:
    recorded(log_probs=np.exp(log_softmax(LOGITS)))
    program = f"""
import sys
from ctcguard.cli import main
code = main(["replay", {str(path_of())!r}])
print(code, sorted({{"torch", "jax", "transformers", "optax"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "3 []"


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b]0;title\x07", "\u202eright to left", "[bold red]markup[/]", "a" * 10_000, "<b>"]
)
def test_a_transcript_cannot_steer_the_terminal(text: str) -> None:
    recorded(vocabulary=["<pad>", text, *"abcdefg"], log_probs=np.exp(log_softmax(LOGITS)))
    shown = printed(path_of())[1]
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\x07" not in shown
    assert len(shown) < 20_000
    if text.startswith(("[", "<")):
        assert text in shown
