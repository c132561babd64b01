"""How a case with a planted mistake is judged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ctcguard.demo.screen import Screen
from ctcguard.demo.training import Records
from ctcguard.errors import CTCVerdictError


@dataclass(frozen=True, slots=True)
class Expected:
    """The verdict that a case must end with.

    Attributes
    ----------
    code, cause : str
        Of the root.
    step : int
        Optimizer steps taken before it.
    also : collection of str
        Symptoms that must be part of the same verdict.
    """

    code: str
    cause: str
    step: int = 0
    also: Collection[str] = ()

    def differs(self, verdicts: list[dict[str, Any]]) -> str:
        """What is not as expected, or an empty string.

        Parameters
        ----------
        verdicts : list of dict
            The verdict records of the run.

        Returns
        -------
        str
            Expected and actual, ready to be shown.
        """
        if len(verdicts) != 1:
            codes = [verdict["code"] for verdict in verdicts]
            return f"expected one verdict, {self.code}, and there were {len(verdicts)} {codes}"
        verdict = verdicts[0]
        wrong = [
            f"{name} must be {wanted!r} and is {verdict[name]!r}"
            for name, wanted in (("code", self.code), ("cause", self.cause), ("step", self.step))
            if verdict[name] != wanted
        ]
        missing = set(self.also) - set(verdict["also"])
        wrong += [f"{', '.join(sorted(missing))} must be among the symptoms"] if missing else []
        return "; ".join(wrong)


class Caught:
    """A block around a training that ctcguard may stop; every other exception goes on its way.

    Attributes
    ----------
    stopped : bool
        Whether a `CTCVerdictError` ended the block.
    """

    def __init__(self) -> None:
        self.stopped = False

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.stopped = isinstance(error, CTCVerdictError)
        return self.stopped


def conclude(screen: Screen, records: Records, expected: Expected, problems: Collection[str], good: str) -> bool:
    """Show how a case ended.

    Parameters
    ----------
    screen : Screen
        Where to.
    records : Records
        Of the guarded run.
    expected : Expected
        What they must hold.
    problems : collection of str
        What else went wrong; empty strings count for nothing.
    good : str
        What to say when all is as expected.

    Returns
    -------
    bool
        Whether it is.
    """
    wrong = [problem for problem in (expected.differs(records.verdicts), *problems) if problem]
    screen.outcome(not wrong, "; ".join(wrong) or good)
    return not wrong
