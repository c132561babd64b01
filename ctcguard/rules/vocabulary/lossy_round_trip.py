"""CTC106 lossy-round-trip."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.vocabulary import Vocabulary


class LossyRoundTrip(Rule):
    """## What it does

    Checks that tokenizing transcripts and putting the symbols together again gives back what was said: letters, digits
    and spaces. Letter case and punctuation may go.

    ## Why is this bad?

    What the tokenizer loses no model can learn, and no loss shows: training is healthy, and the error rate on real text
    stays high for ever. Dropped characters also make targets shorter than the speech.

    ## In optax

    Nothing shows, as everywhere. Texts are known in the Hugging Face Trainer only; CTC105 counts unknown labels in JAX.

    ## Likely causes

    - `letter-case`: in the other case the same texts come back whole; or the tokenizer changes the case itself.
    - `spaces-lost`: all but the spaces comes back: the vocabulary has no word delimiter.
    - `characters-lost`: characters that the vocabulary lacks, which are named.

    ## How to fix

    `letter-case`: `text.lower()` (or `upper()`) before the tokenizer, and `do_lower_case=False`. `spaces-lost`: a
    `word_delimiter_token` that is in the vocabulary. `characters-lost`: make the vocabulary from the normalised
    training transcripts. It worked when `tokenizer.decode(tokenizer(text).input_ids, group_tokens=False)` is the text.

    ## Thresholds

    - `lost_fraction` (share of the texts, 0.05): fewer hold a rare character.

    ## Known problems

    An error when nothing at all comes back. Looks at up to 64 texts of the training data set, if it is one of
    `datasets` with one column of texts, or a list; else, and where there are two such columns, only at a word made of
    the vocabulary's own letters. Says nothing of a tokenizer that cannot be called with a text.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> from ctcguard.vocabulary import Vocabulary
    >>> class Tokenizer:
    ...     get_vocab = staticmethod(lambda: {"<pad>": 0, "<unk>": 1, "A": 2, "B": 3})
    ...     def __call__(self, text): return {"input_ids": [self.get_vocab().get(c, 1) for c in text]}
    >>> readings = {"vocabulary": Vocabulary.of(Tokenizer())}
    >>> LossyRoundTrip().check(Readings(readings | {"texts": ("ab", "ba")})).cause
    'letter-case'

    Use instead:

    >>> LossyRoundTrip().check(Readings(readings | {"texts": ("AB", "BA")}))

    ## References

    - https://github.com/NVIDIA-NeMo/Speech/issues/234 (normalisation strips all characters that are not English)
    - https://github.com/huggingface/transformers/issues/10942 (symbols of several characters are split)
    - https://github.com/facebookresearch/fairseq/issues/4833 (words run together)
    """

    code = "CTC106"
    severity = Severity.WARNING
    wants = ("vocabulary", "texts")
    causes = ("letter-case", "spaces-lost", "characters-lost")
    explains = ("CTC105",)
    aftermath = explains

    lost_fraction: float = Field(default=0.05, gt=0, lt=1, description="share of the texts that may lose something")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when too many texts do not come back."""
        vocabulary: Vocabulary = readings["vocabulary"]
        texts: Sequence[str] = readings["texts"] or vocabulary.own_word()
        backs = {text: back for text in texts if (back := vocabulary.round_trip(text)) is not None}
        lost = [text for text, back in backs.items() if said(back) != said(text)]
        if len(lost) <= self.lost_fraction * len(backs):
            return None
        cause, evidence, fix = self._cause(vocabulary, lost)
        example = min(lost, key=len)
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"tokenizing must keep what was said, but {len(lost)} of {len(backs)} texts come back changed: "
            f"{example[:80]!r} as {backs[example][:80]!r}",
            fix=fix,
            numbers={"texts": len(backs), "lost": len(lost)},
            severity=None if any(squeezed(backs[text]) for text in backs) else Severity.ERROR,
        )

    def _cause(self, vocabulary: Vocabulary, lost: Sequence[str]) -> tuple[str, str, str]:
        for name, change in (("lower", str.lower), ("upper", str.upper)):
            if all(said(vocabulary.round_trip(change(text)) or "") == said(text) for text in lost):
                fix = f"write the texts in {name} case before tokenizing: text.{name}(), with do_lower_case=False"
                return "letter-case", f"in {name} case they come back whole", fix
        symbols = {symbol for i in vocabulary.emittable() if (symbol := vocabulary.symbol(i))}
        nothing = not any(squeezed(vocabulary.round_trip(text) or "") for text in lost)
        if nothing and all(c in symbols for text in lost for c in text if c.isalpha()):
            evidence = "the vocabulary has all these letters as they are written, but the tokenizer changes their case"
            return "letter-case", evidence, "make the tokenizer with do_lower_case=False (True makes text UPPER case)"
        backs = [vocabulary.round_trip(text) or "" for text in lost]
        if all(squeezed(back) == squeezed(text) for back, text in zip(backs, lost, strict=True)):
            fix = 'add the word delimiter to the vocabulary ("|", with word_delimiter_token="|")'
            return "spaces-lost", "all but the spaces comes back", fix
        gone = sorted({c for text, back in zip(lost, backs, strict=True) for c in said(text) if c not in said(back)})
        named = " ".join(map(repr, gone[:10])) or "characters that stand elsewhere in the text"
        fix = "make the vocabulary from the training transcripts, after all normalisation, or normalise these away"
        return "characters-lost", f"lost: {named}{' …' if len(gone) > 10 else ''}", fix


def said(text: str) -> str:
    """Letters, marks and digits in one case, with single spaces: what of a text can be heard."""
    folded = unicodedata.normalize("NFC", text.casefold())
    heard = "".join(c if unicodedata.category(c)[0] in "LMN" else " " if c.isspace() else "" for c in folded)
    return " ".join(heard.split())


def squeezed(text: str) -> str:
    """The same without spaces."""
    return said(text).replace(" ", "")
