"""The pure middle of ctcguard: a call, its readings, what the rules say of them. No memory, no reaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ctcguard._array import dtype_name, quiet, to_numpy
from ctcguard.call import CTCCall, ctc_call
from ctcguard.finding import Finding, Utterance, Where
from ctcguard.packing import unpack
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure
from ctcguard.readings import Readings
from ctcguard.rules import ALL, Rule
from ctcguard.verdict import Verdict, verdicts
from ctcguard.vocabulary import Vocabulary

Fault = Callable[[str, Exception], None]


class Judgement(NamedTuple):
    """What the rules said of one set of readings.

    Attributes
    ----------
    findings : tuple of Finding
        In order of code.
    healthy : tuple of (code, explains)
        Rules that ran and found nothing.
    """

    findings: tuple[Finding, ...]
    healthy: tuple[tuple[str, tuple[str, ...]], ...]


def facts(call: CTCCall, vocabulary: Vocabulary | None = None) -> dict[str, Any]:
    """What is known of a call without reading an array: static for a shape."""
    known = {
        "framework": call.framework,
        "source": call.source,
        "expects": call.expects,
        "batch": call.batch,
        "frames": call.frames,
        "classes": call.classes,
        "blank": call.blank,
        "label_room": int(call.targets.shape[-1]),
        "concatenated": call.concatenated,
        "reduction": call.reduction,
        "zero_infinity": call.zero_infinity,
        "dtype": dtype_name(call.scores),
        "softmax_dtype": call.softmax_dtype,
        "provenance": call.provenance,
    }
    return known | ({} if vocabulary is None else {"vocabulary": vocabulary})


def describer(call: CTCCall, vocabulary: Vocabulary | None = None, redact: bool = False) -> Callable[[int], Utterance]:
    """A function from batch index to what is known of that utterance; reads the targets only when it is called.

    It holds on to targets and lengths, not to the scores. With ``redact`` nothing is known but the index.
    """
    if redact:
        return lambda index: Utterance(index=index)
    targets, target_lengths = call.targets, call.target_lengths
    names, padded = call.utterance_ids, not call.concatenated

    def describe(index: int) -> Utterance:
        with quiet():  # numbers that are no integers are described too
            counts = to_numpy(target_lengths).astype(int)
            name = names[index] if index < len(names) else None
            if counts[index] < 0:  # as it came, or held by another process
                return Utterance(index=index, id=name)
            first = 0 if padded else max(0, int(counts[:index].sum()))
            end = max(0, counts[index] if padded else int(counts[: index + 1].sum()))
            labels = tuple(to_numpy((targets[index, :] if padded else targets)[first:end]).astype(int).tolist())
            return Utterance(index=index, id=name, text=vocabulary.text(labels) if vocabulary else None, labels=labels)

    return describe


def judge(
    rules: Iterable[Rule], readings: Readings, where: Where | None = None, fault: Fault | None = None
) -> Judgement:
    """Run every rule whose readings are there.

    Parameters
    ----------
    rules : iterable of Rule
        Configured rules.
    readings : Readings
        A rule whose ``wants`` are not all present is skipped.
    where : Where, optional
        The place in the run, written into the findings.
    fault : callable, optional
        Told of the code and the exception when a rule itself fails; by default the exception leaves.
    """
    findings: list[Finding] = []
    healthy = []
    for rule in rules:
        if not readings.has(rule.wants):
            continue
        try:
            finding = rule.check(readings)
            finding = finding.at(where) if finding is not None and where else finding
        except Exception as error:
            if fault is None:
                raise
            fault(rule.code, error)
            continue
        if finding is None:
            healthy.append((rule.code, rule.explains))
        else:
            findings.append(finding)
    return Judgement(tuple(findings), tuple(healthy))


def diagnose(*, vocabulary: Any = None, rules: Sequence[Rule] | None = None, **call: Any) -> tuple[Verdict, ...]:
    """Judge one CTC call on its own, without a guard: the same probes and rules as in a training.

    Parameters
    ----------
    vocabulary : tokenizer, processor, list, dict or int, optional
        What the classes mean.
    rules : sequence of Rule, optional
        All with their default thresholds when not given.
    **call
        As for `ctcguard.call.ctc_call`: ``log_probs`` or ``logits`` (batch, time, classes), ``targets``,
        ``input_lengths``, ``target_lengths``, ``blank``, ``losses`` … of any array library.

    Returns
    -------
    tuple of Verdict
        Worst first; empty when the call is healthy.

    Raises
    ------
    CallError
        If the shapes are not those of one CTC call.

    Examples
    --------
    >>> import numpy as np
    >>> raw_logits = np.full((1, 20, 4), 3.0)
    >>> diagnose(log_probs=raw_logits, targets=[[1, 2]], input_lengths=[20], target_lengths=[2], blank=0)[0].cause
    'raw-logits'
    """
    known = None if vocabulary is None else Vocabulary.of(vocabulary)
    normal = ctc_call(**({} if known is None else {"unknown": known.unknown}) | call)
    packed, layout = measure(normal, CONTRACT + DISTRIBUTION, beside=normal.scores)
    readings = Readings({**facts(normal, known), **unpack(packed, layout)}, describer(normal, known))
    findings, healthy = judge([rule() for rule in ALL] if rules is None else rules, readings)
    return verdicts(findings, healthy)
