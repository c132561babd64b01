"""Every rule's class docstring is its page, and the page tells the truth."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import sys
from itertools import pairwise

import pytest

from ctcguard.rules import ALL
from ctcguard.rules._rule import Rule

HEADINGS = [
    "What it does",
    "Why is this bad?",
    "In optax",
    "Likely causes",
    "How to fix",
    "Thresholds",
    "Known problems",
    "Example",
    "References",
]
NO_REPORTS = {"CTC901", "CTC902", "CTC903"}  # about ctcguard itself

every_rule = pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.code)


def page(rule: type[Rule]) -> str:
    return inspect.cleandoc(rule.__doc__ or "")


def sections(rule: type[Rule]) -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", page(rule), flags=re.MULTILINE)
    return {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def examples(rule: type[Rule]) -> doctest.DocTest:
    names = dict(vars(sys.modules[rule.__module__]))
    return doctest.DocTestParser().get_doctest(page(rule), names, rule.code, None, None)


def is_silent(example: doctest.Example) -> bool:
    """Whether an example shows that nothing is found: it prints an empty result, or it is a call that gives None."""
    call = isinstance(ast.parse(example.source).body[-1], ast.Expr)
    return call and example.want.strip() in {"()", "[]", "None", ""}


@every_rule
def test_all_headings_in_order(rule: type[Rule]) -> None:
    about_itself = rule.code.startswith("CTC9")
    assert list(sections(rule)) == [heading for heading in HEADINGS if heading != "In optax" or not about_itself]
    assert all(sections(rule).values())
    assert "TODO" not in page(rule)


@every_rule
def test_first_sentence_says_what_is_checked(rule: type[Rule]) -> None:
    assert sections(rule)["What it does"].split()[0].rstrip(",") == "Checks"


@every_rule
def test_causes_are_those_of_the_rule(rule: type[Rule]) -> None:
    listed = re.findall(r"^- `([a-z0-9-]+)`", sections(rule)["Likely causes"], re.MULTILINE)
    assert sorted(listed) == sorted(rule.causes)


@every_rule
def test_thresholds_are_named_with_their_defaults_and_described(rule: type[Rule]) -> None:
    text = " ".join(sections(rule)["Thresholds"].split())
    for name, field in rule.model_fields.items():
        said = re.search(rf"`{name}` \(([^)]*)\)", text)
        assert said is not None, name
        assert re.search(rf"(?<![\w.]){re.escape(f'{field.default:g}')}(?![\w.])", said[1].replace(",", " ")), name
        assert field.description, name
    if not rule.model_fields:
        assert text.startswith("None")


@every_rule
def test_examples_run_one_fires_and_one_does_not(rule: type[Rule]) -> None:
    found = examples(rule)
    assert any(sign in example.want for example in found.examples for sign in (rule.code, *rule.causes))
    assert any(map(is_silent, found.examples))
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not report, "".join(report)


@every_rule
def test_public_reports_are_linked(rule: type[Rule]) -> None:
    links = re.findall(r"https?://\S+", sections(rule)["References"])
    assert links or rule.code in NO_REPORTS
    assert len(set(links)) == len(links)


@every_rule
def test_names_agree(rule: type[Rule]) -> None:
    words = re.findall(r"[A-Z][a-z0-9]*", rule.__name__)
    assert rule.name() == "-".join(words).lower()
    assert rule.__module__.rsplit(".", 1)[-1] == "_".join(words).lower()
    assert sys.modules[rule.__module__].__doc__ == f"{rule.code} {rule.name()}."


def test_codes_are_unique_and_sorted() -> None:
    codes = [rule.code for rule in ALL]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"CTC[1-9]\d\d", code) for code in codes)
    assert len({rule.name() for rule in ALL}) == len(ALL)


def test_every_rule_of_the_package_is_in_the_list() -> None:
    def below(rule: type[Rule]) -> set[type[Rule]]:
        return {rule} | {found for child in rule.__subclasses__() for found in below(child)}

    with_code = {rule for rule in below(Rule) if "code" in vars(rule) and rule.__module__.startswith("ctcguard.")}
    assert with_code == set(ALL)


def cycle(relation: dict[str, tuple[str, ...]]) -> list[str]:
    """A chain of codes that leads back to its beginning, or nothing."""

    def search(path: list[str]) -> list[str]:
        if path[-1] in path[:-1]:
            return path
        return next(filter(None, (search([*path, code]) for code in relation.get(path[-1], ()))), [])

    return next(filter(None, (search([code]) for code in relation)), [])


def test_explanations_name_rules_and_never_lead_back() -> None:
    relation = {rule.code: rule.explains for rule in ALL}
    assert {code for explained in relation.values() for code in explained} <= relation.keys()
    assert cycle(relation) == []
    assert {code for rule in ALL for code in rule.aftermath} <= relation.keys()


def test_a_cycle_would_be_found() -> None:
    found = cycle({"CTC1": ("CTC2",), "CTC2": ("CTC3", "CTC4"), "CTC4": ("CTC2",)})
    assert set(pairwise(found)) >= {("CTC2", "CTC4"), ("CTC4", "CTC2")}


@every_rule
def test_causes_and_readings_are_listed_once(rule: type[Rule]) -> None:
    for names in (rule.causes, rule.wants, rule.explains):
        assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cause) for cause in rule.causes)
