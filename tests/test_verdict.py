"""Many symptoms, one cause."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.errors import CTCVerdictError
from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.rules import ALL
from ctcguard.verdict import Verdict, explains, ranked, verdicts

EXPLAINS = {rule.code: rule.explains for rule in ALL}


def found(code: str, *affected: int, severity: Severity = Severity.ERROR, **other: Any) -> Finding:
    values = {"name": f"name-of-{code[3:]}", "cause": "why", "message": f"measured {code}", "fix": "do this", **other}
    values.setdefault("explains", EXPLAINS.get(code, ()))
    return Finding(code=code, severity=severity, affected=frozenset(affected), **values)


def shape(merged: Iterable[Verdict]) -> list[tuple[str, list[str]]]:
    return [(verdict.code, [finding.code for finding in verdict.also]) for verdict in merged]


def order(relation: Mapping[str, Iterable[str]]) -> list[str]:
    return list(TopologicalSorter(relation).static_order())


def test_the_rules_explain_each_other_without_cycles() -> None:
    assert set(order(EXPLAINS)) == {rule.code for rule in ALL}


def test_a_cycle_would_be_found() -> None:
    with pytest.raises(CycleError):
        order({**EXPLAINS, "CTC504": ("CTC402",)})


def test_every_code_explained_is_a_rule() -> None:
    assert {code for codes in EXPLAINS.values() for code in codes} <= EXPLAINS.keys()
    assert {code for rule in ALL for code in rule.aftermath} <= EXPLAINS.keys()


def test_nothing_found() -> None:
    assert verdicts([]) == ()
    assert verdicts([], [("CTC402", ("CTC501",))]) == ()


@pytest.mark.parametrize(
    ("findings", "merged"),
    [
        ([found("CTC501", 0), found("CTC402"), found("CTC401", 0, 1)], [("CTC402", ["CTC401", "CTC501"])]),
        ([found("CTC201", 3), found("CTC501", 3), found("CTC504", 3)], [("CTC201", ["CTC501", "CTC504"])]),
        ([found("CTC403", 1), found("CTC502", 1), found("CTC601")], [("CTC403", ["CTC502", "CTC601"])]),
        ([found("CTC502", 1), found("CTC601")], [("CTC502", ["CTC601"])]),
        ([found("CTC402"), found("CTC603")], [("CTC402", []), ("CTC603", [])]),
    ],
)
def test_one_verdict_for_each_root(findings: list[Finding], merged: list[tuple[str, list[str]]]) -> None:
    assert shape(verdicts(findings)) == merged
    assert shape(verdicts(findings[::-1])) == merged


def test_a_symptom_is_reached_through_another() -> None:
    chain = [found("A1", explains=("B2",)), found("B2", explains=("C3",)), found("C3")]
    assert shape(verdicts(chain)) == [("A1", ["B2", "C3"])]


def test_they_must_meet_in_an_utterance() -> None:
    short, negative = found("CTC301", 1, 2), found("CTC502", 2, 3)
    assert explains(short, negative)
    assert not explains(negative, short)
    assert not explains(short, found("CTC502", 3))
    assert explains(short, found("CTC601"))
    assert explains(found("CTC402"), found("CTC501", 5))
    assert shape(verdicts([short, found("CTC502", 3)])) == [("CTC301", []), ("CTC502", [])]


def test_information_explains_nothing_worse() -> None:
    hint, error = found("CTC402", severity=Severity.INFORMATION), found("CTC501", 0)
    assert shape(verdicts([hint, error])) == [("CTC501", []), ("CTC402", [])]
    mild = found("CTC401", 0, severity=Severity.INFORMATION)
    assert shape(verdicts([hint, mild])) == [("CTC402", ["CTC401"])]


def test_a_symptom_of_two_roots_goes_to_the_better_ranked() -> None:
    roots = [found("CTC302", 1), found("CTC203", 1), found("CTC502", 1)]
    assert shape(verdicts(roots)) == [("CTC203", ["CTC502"]), ("CTC302", [])]
    roots[1] = found("CTC203", 1, severity=Severity.WARNING)
    assert shape(verdicts(roots)) == [("CTC302", ["CTC502"]), ("CTC203", [])]


def test_ranked_by_severity_and_then_by_the_flow_of_data() -> None:
    mixed = [
        found("CTC502"),
        found("CTC204", severity=Severity.INFORMATION),
        found("CTC201"),
        found("CTC503", severity=Severity.WARNING),
    ]
    assert [finding.code for finding in ranked(mixed)] == ["CTC201", "CTC502", "CTC503", "CTC204"]


def test_ruled_out_are_healthy_rules_that_could_have_explained_it() -> None:
    healthy = [("CTC402", ("CTC501",)), ("CTC204", ()), ("CTC201", ("CTC501", "CTC502")), ("CTC301", ("CTC502",))]
    (negative,) = verdicts([found("CTC501", 0)], healthy)
    assert negative.ruled_out == ("CTC201", "CTC402")
    (unnormalised,) = verdicts([found("CTC402"), found("CTC501", 0)], healthy)
    assert unnormalised.ruled_out == ("CTC201",)


facts = st.tuples(st.sampled_from(sorted(EXPLAINS)), st.sets(st.integers(0, 3)), st.sampled_from(list(Severity)))


@given(st.lists(facts, max_size=12))
def test_no_finding_is_lost_or_told_twice(drawn: list[tuple[str, set[int], Severity]]) -> None:
    findings = [found(code, *where, severity=severity, time=i) for i, (code, where, severity) in enumerate(drawn)]
    merged = verdicts(findings)
    told = [finding for verdict in merged for finding in verdict.findings()]
    assert sorted(told, key=lambda finding: finding.time) == findings
    roots = [verdict.root for verdict in merged]
    assert roots == ranked(roots)
    assert not any(explains(cause, root) for root in roots for cause in findings if cause is not root)


def full() -> Verdict:
    utterances = [Utterance(index=i, note=f"{i} labels") for i in range(5)]
    utterances[0] = Utterance(index=0, id="clip-7", text="abc", note="3 labels")
    root = found(
        "CTC402",
        *range(8),
        evidence="seen",
        utterances=tuple(utterances),
        step=12,
        source="torch.ctc_loss",
        call_site="a.py:8",
    )
    return Verdict(root=root, also=(found("CTC501", 3),), ruled_out=("CTC201", "CTC203"), action="raise")


def test_text() -> None:
    assert full().text().splitlines() == [
        "CTC402 name-of-402 · error · step 12 · torch.ctc_loss at a.py:8",
        "  measured CTC402",
        "  cause: why: seen",
        "  fix:   do this",
        "  in:    utterance 0 id clip-7 'abc': 3 labels",
        "  in:    utterance 1: 1 labels",
        "  in:    utterance 2: 2 labels",
        "  in:    utterance 3: 3 labels",
        "  in:    utterance 4: 4 labels",
        "  in:    and 3 more",
        "  also:  CTC501 name-of-501 (measured CTC501)",
        "  healthy: CTC201, CTC203",
        "  more:  ctcguard explain CTC402",
    ]


def test_text_of_the_least() -> None:
    lines = Verdict(root=found("CTC901", phase="eval")).text().splitlines()
    assert lines[0] == "CTC901 name-of-901 · error · evaluation · step 0"
    assert [line.split()[0] for line in lines[1:]] == ["measured", "cause:", "fix:", "more:"]
    assert "before training" in Verdict(root=found("CTC101", phase="setup")).headline()


def test_record() -> None:
    assert full().record() == {
        "type": "verdict",
        "schema": 1,
        "code": "CTC402",
        "cause": "why",
        "step": 12,
        "also": ["CTC501"],
        "ruled_out": ["CTC201", "CTC203"],
        "action": "raise",
    }


def test_an_exception_carries_it_through_pickle() -> None:
    error = CTCVerdictError(full())
    assert str(error) == full().text()
    again = pickle.loads(pickle.dumps(error))
    assert again.verdict.code == "CTC402"
    assert copy.deepcopy(error.verdict) == error.verdict
