"""``ctcguard run``, as the tests of the pairs have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.detection.tools._tool import JAX, TORCH, Say, Steps, Tool


class CTCGuard(Tool):
    """Its alarms are verdicts that are errors or warnings: one alert each."""

    name = "ctcguard"
    title = "ctcguard"
    how = "`ctcguard run`, told to record and not to stop; an alarm is a verdict, which is one alert to a wandb user"
    folders = (*TORCH, *JAX)
    own = True

    def steps(self, kind: str) -> Steps:
        return OwnSteps()

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        from tests.failures.pairs import guarded

        self._steps = steps
        with guarded(self.folder, self.settings):
            yield

    def finish(self, say: Say) -> None:
        from tests.failures.pairs import alarms, records

        lines = records(self.folder)
        self._steps.taken = sum(line["steps"] for line in lines if line["type"] == "end")
        for alarm in alarms(lines):
            root = next(
                line
                for line in lines
                if line["type"] == "finding"
                and (line["code"], line["cause"], line["step"]) == (alarm.code, alarm.cause, alarm.step)
            )
            said = "\n".join([root["message"], f"cause: {root['cause']}: {root['evidence']}", f"fix: {root['fix']}"])
            say(f"{alarm.code} {alarm.cause}", said, alarm.step)


class OwnSteps:
    """ctcguard counts the steps itself."""

    def __init__(self) -> None:
        self.taken = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Nothing to do."""
        yield
