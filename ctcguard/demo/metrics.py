"""The character error rate."""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(reference: str, hypothesis: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn one text into the other (Levenshtein).

    Parameters
    ----------
    reference, hypothesis : str
        Two texts.

    Returns
    -------
    int
        At least 0, at most the length of the longer text.

    Examples
    --------
    >>> edit_distance("seven", "eleven")
    2
    """
    row = list(range(len(hypothesis) + 1))
    for number, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], number
        for column, heard in enumerate(hypothesis, start=1):
            cheapest = min(row[column] + 1, row[column - 1] + 1, diagonal + (expected != heard))
            diagonal, row[column] = row[column], cheapest
    return row[-1]


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Edit distance over all texts, divided by the characters of the references.

    Parameters
    ----------
    references, hypotheses : sequence of str
        What was said and what was heard, in the same order.

    Returns
    -------
    float
        A fraction: 0 when all is right; above 1 when more was heard than said.

    Raises
    ------
    ValueError
        If the numbers of texts differ, or the references hold no character.

    Examples
    --------
    >>> character_error_rate(["one two"], ["one tow"])
    0.2857142857142857
    """
    characters = sum(map(len, references))
    if not characters:
        raise ValueError("the character error rate needs at least one character of reference text")
    errors = sum(edit_distance(said, heard) for said, heard in zip(references, hypotheses, strict=True))
    return errors / characters
