"""CTC702 single-symbol-collapse."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.dynamics._collapse import Cause, CollapseRule
from ctcguard.rules.dynamics._window import Window
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary


class SingleSymbolCollapse(CollapseRule):
    """## What it does

    Checks that, after a grace period, the model says more than one symbol: that it does not stand still where one
    symbol that is not the blank wins all frames and the loss is that of an output which never changes.

    ## Why is this bad?

    Every transcript is the same one letter, space or `|`. What CTC701 says of the blank holds here as well; that it is
    another symbol says more: the labels fill most of the frames, or the model takes another class for the blank than
    the loss does.

    ## In optax

    Looks the same. The best logits that are the same in every frame, for `[1, 2, 1, 3, 1]` in 6 frames with 5 classes,
    lose 3.95 nats, and class 1 wins every frame. When the blank is another class than the model thinks, it is
    `blank_id=` that must change: its default is 0.

    ## Likely causes

    - `blank-index`: the symbol is the vocabulary's blank, and the loss uses another.
    - `far-out`: the loss is more than 1.5 times what a constant output can reach: the scores were driven far out, as a
      rule by a learning rate that is too high.
    - `unpaired`: the number of labels does not grow with that of frames: transcripts of other utterances.
    - `few-frames`: there are fewer than 2.5 frames a label, so that the most frequent label beats the blank.
    - `constant-output`: none of these; see CTC701.

    ## How to fix

    `blank-index`: pass the vocabulary's index to the loss. `few-frames`: subsample by less, or use longer units. Else
    as for CTC701. It worked when greedy transcripts hold more than one symbol.

    ## Thresholds

    - `grace_steps` (optimizer steps, 2000), `calls` (training calls, 1024), `level` (of the loss of the best constant
      output, 0.6) and `fall` (share of the loss, 0.01): as for CTC701.
    - `top_fraction` (share of the frames, 0.98): won by the same symbol in every call.

    ## Known problems

    As for CTC701. Silent when all transcripts really are one symbol: the loss is then far below `level`.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> stuck = dict(top_class=4.0, top_fraction=1.0, labels=80.0, input_length_mean=100.0, loss_nats=90.0)
    >>> stuck |= dict(constant_ratio=0.9, uniform_ratio=0.8)
    >>> history = {name: np.full(1024, value) for name, value in stuck.items()}
    >>> history["step"] = np.arange(1000.0, 2024.0)
    >>> SingleSymbolCollapse().check(Readings({"history": history, "blank": 0})).cause
    'few-frames'

    Use instead:

    >>> history["top_fraction"] = np.full(1024, 0.3)
    >>> SingleSymbolCollapse().check(Readings({"history": history, "blank": 0}))

    ## References

    - https://github.com/facebookresearch/fairseq/issues/3340 (always id 4)
    - https://github.com/PaddlePaddle/PaddleOCR/issues/1138 (only spaces; rose after a long plateau)
    - https://github.com/NVIDIA-NeMo/Speech/issues/3796 (only the unknown symbol)
    - https://github.com/huggingface/transformers/issues/18612 (the loss takes another index for the blank)
    """

    code = "CTC702"
    severity = Severity.WARNING
    wants = ("history", "blank")
    causes = ("blank-index", "far-out", "unpaired", "few-frames", "constant-output")
    explains = ("CTC703",)
    aftermath = explains

    top_fraction: float = Field(0.98, gt=0, le=1, description="share of the frames that one symbol wins in every call")

    def collapsed(self, window: Window, readings: Readings) -> bool:
        """One symbol, always the same, wins nearly every frame."""
        top, share = window.known("top_class"), window.known("top_fraction")
        if not window.enough(len(top)) or top[-1] == readings["blank"]:
            return False
        return bool((top == top[-1]).all() and share.min() >= self.top_fraction)

    def said(self, window: Window, readings: Readings) -> str:
        """Which symbol won how many frames."""
        symbol = quoted(readings.get("vocabulary"), self._symbol(window))
        return (
            f"several symbols must win frames, but in {window.span()} symbol {symbol} won "
            f"{np.min(window.known('top_fraction')):.1%} or more of them"
        )

    def likely(self, window: Window, readings: Readings) -> Cause:
        """The vocabulary knows whether it is the model's blank."""
        vocabulary: Vocabulary | None = readings.get("vocabulary")
        symbol, blank = self._symbol(window), readings["blank"]
        if vocabulary is None or not _is_blank(vocabulary, symbol):
            return super().likely(window, readings)
        return Cause(
            "blank-index",
            f"{quoted(vocabulary, symbol)} is the blank of the {vocabulary.kind}, but the loss takes "
            f"{quoted(vocabulary, blank)} for it",
            f"pass blank={symbol} to the loss (Hugging Face: pad_token_id={symbol} in the config), and keep {symbol} "
            "out of the targets",
        )

    def _symbol(self, window: Window) -> int:
        return int(window.known("top_class")[-1])


def _is_blank(vocabulary: Vocabulary, symbol: int) -> bool:
    """Declared, or where none is, spelt like one."""
    if vocabulary.blank is not None:
        return symbol == vocabulary.blank
    return vocabulary.symbol(symbol) is not None and vocabulary.is_blank_name(symbol)
