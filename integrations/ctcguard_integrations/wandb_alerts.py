"""Weights & Biases: one alert a verdict, the readings beside the user's own metrics, the verdict in the summary.

At the end of a run with findings: a table of them, and the files of the run with their report as an artifact.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import wandb

from ctcguard.background import on_thread
from ctcguard.finding import Finding, Severity
from ctcguard.links import rule_url
from ctcguard.report import missing, write_report
from ctcguard.verdict import Verdict

LEVELS = {Severity.ERROR: "ERROR", Severity.WARNING: "WARN", Severity.INFORMATION: "INFO"}
COUNTS = ("steps", "calls", "findings", "overhead_fraction")
NEVER_SUPPRESSED_S = 0.001
"""Time in which wandb drops alerts of the same title; 0 would mean its default of a minute."""
DEADLINE_S, PAUSE_S = 5.0, 0.1
"""Longest wait for wandb's background process; shortest time between two rows (each may cost a millisecond)."""
TITLE_CHARACTERS, LINE_CHARACTERS, TEXT_CHARACTERS = 63, 300, 2500
ACTIVE = re.compile(r"@(?=\w)|:(?=//)|mailto(?=:)|www(?=\.)|\](?=[(\[:])", re.IGNORECASE)
"""What mail and chat readers turn into mentions and links; a zero-width space after it keeps it text."""
THREAD = "ctcguard-wandb"
TABLE, COLUMNS = "findings_table", ("step", "severity", "rule", "message", "cause", "fix", "utterances", "call")
ROWS, CELL_CHARACTERS, ARTIFACT_BYTES = 1000, 500, 64_000_000
"""Longest table and cell; size of the records that are handed on, the first ones first."""
NOTHING: Future[None] = Future()
NOTHING.set_result(None)


def inert(text: str) -> str:
    """One line of code, shown as it is by Markdown, HTML and Slack; a long one loses its middle, never its end."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > LINE_CHARACTERS:
        line = f"{line[: LINE_CHARACTERS - 101]} … {line[-98:]}"
    return "`" + ACTIVE.sub("\\g<0>\u200b", html.escape(line, quote=False).replace("`", "'")) + "`"


def alert_text(verdict: Verdict, folder: Path | None = None, run_url: str | None = None) -> str:
    """The body of an alert: headline, place, message, cause, fix, utterances, symptoms, and where to read more.

    That is the run directory now, the artifact at the end of the run, and the rule's page.
    """
    rows = [("", verdict.headline()), ("at", verdict.place()), *verdict.rows()]
    lines = [f"{label}: {inert(text)}" if label else inert(text) for label, text in rows if text]
    while sum(map(len, lines)) > TEXT_CHARACTERS:
        lines.pop()
    if folder is not None:
        lines.append(f"look: {inert(f'ctcguard report {folder}')}")
        lines += [f"at the end of the run: {run_url}/artifacts"] if run_url else []
    return "\n".join([*lines, rule_url(verdict.root.code, verdict.root.name)])


def worst_severity(verdict: Verdict) -> Severity:
    """That of the root or of its worst symptom, as the guard judges it."""
    return min((finding.severity for finding in verdict.findings()), key=lambda severity: severity.rank)


def prefixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under ``ctcguard/``."""
    return {f"ctcguard/{name}": value for name, value in values.items()}


def row_of(finding: Finding) -> tuple[Any, ...]:
    """A row of the table of findings: text as it is, for wandb shows cells as text."""
    one = Verdict(root=finding)
    moment = "before training" if finding.phase == "setup" else f"{finding.step}"
    texts = (
        finding.severity.value,
        f"{finding.code} {finding.name}",
        finding.message,
        f"{finding.cause}: {finding.evidence}" if finding.evidence else finding.cause,
        finding.fix,
        "; ".join(one.utterance_lines()),
        one.place(),
    )
    return (moment, *(text[:CELL_CHARACTERS] for text in texts))


def files_in(folder: Path) -> list[Path]:
    """Findings, readings, the report, and as many flight records as there is room for; nothing without a record.

    Parameters
    ----------
    folder : Path
        The run directory. The report is written there first, where its extra is installed.
    """
    records = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    if not records:
        return []
    report = [] if missing() else [write_report(folder)]
    kept, room = [], ARTIFACT_BYTES
    for path in records:
        room -= path.stat().st_size
        kept += [path] if room >= 0 else []
    lines = [folder / name for name in ("findings.jsonl", "readings.jsonl")]
    return [*report, *(path for path in lines if path.exists()), *kept]


def _log_files(run: wandb.Run, files: Sequence[Path]) -> None:
    """The files of the run as an artifact, and its name in the summary: only once it has been handed over."""
    artifact = wandb.Artifact(f"ctcguard-{run.id}", type="ctcguard", description="What happened in this run")
    for path in files:
        artifact.add_file(str(path), name=path.name, skip_cache=True)
    run.log_artifact(artifact)
    run.summary.update(prefixed({"artifact": artifact.name}))


def _one_by_one(*calls: Callable[[], object]) -> None:
    for call in calls:
        call()


class WandbAlerts:
    """A sink for the run that is active when it is told something; without one it does nothing and starts nothing.

    Readings are logged with ``commit=False``: they join the next row that the user logs, whose step and values stay as
    they are; what is left at the end is a row of its own. A finished ``run`` (UsageError), a dead background process
    (ConnectionError) and a hanging one (TimeoutError) raise; `readings` does not wait, and raises when next called.

    Parameters
    ----------
    run : wandb.Run, optional
        The run to use instead of the active one.
    """

    name = "wandb"

    def __init__(self, run: wandb.Run | None = None) -> None:
        self._given = run
        self._charted: set[tuple[wandb.Run, str]] = set()
        self._worst: Verdict | None = None
        self._findings: list[Finding] = []
        self.files_of_run: Callable[[], Path] | None = None
        self._under_way, self._late, self._next_row_s = NOTHING, False, 0.0

    @property
    def active(self) -> bool:
        """Whether there is a run that takes alerts: in most jobs, rank 0 alone holds one."""
        run = self._run()
        return run is not None and not run.disabled

    def finding(self, finding: Finding) -> None:
        """Keep it for the table at the end; what is urgent is sent in its verdict."""
        if len(self._findings) < ROWS:
            self._findings.append(finding)

    def verdict(self, verdict: Verdict) -> None:
        """Send one alert, and write the worst verdict so far to the summary."""
        severity, summary = worst_severity(verdict), {}
        if self._worst is None or severity.rank < worst_severity(self._worst).rank:
            self._worst = verdict
            cause = f"{verdict.code} {verdict.cause}"
            summary = {"verdict": cause, "verdict_severity": severity.value, "verdict_step": verdict.step}
        if (run := self._run()) is not None:
            folder = None if self.files_of_run is None else self.files_of_run()
            title, text = verdict.root.title()[:TITLE_CHARACTERS], alert_text(verdict, folder, run.url)
            alert = partial(run.alert, title, text, level=LEVELS[severity], wait_duration=NEVER_SUPPRESSED_S)
            self._send(run, alert, partial(run.summary.update, prefixed(summary)))

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Put the scalars into the user's next row; those of one call in a tenth of a second."""
        if (run := self._run()) is None or time.monotonic() < self._next_row_s:
            return
        row = prefixed({**scalars, "step": step})
        if fresh := {(run, name) for name in row} - self._charted:
            self._charted |= fresh  # by full names: what the user defines for "*" comes before "ctcguard/*"
            define = partial(run.define_metric, step_metric="ctcguard/step", summary="none")
            steps = partial(run.define_metric, "ctcguard/step", hidden=True, summary="none")  # the axis of the others
            self._send(run, steps, *(partial(define, name) for _, name in fresh if name != "ctcguard/step"))
        self._settled().result()
        self._under_way = on_thread(partial(run.log, row, commit=False), THREAD)
        self._next_row_s = time.monotonic() + PAUSE_S

    def end(self, record: Mapping[str, Any]) -> None:
        """Write cost and counts to the summary, and ``healthy`` when there was no verdict; then table and artifact."""
        healthy = {"verdict": "healthy"} if self._worst is None else {}
        summary = healthy | {name: record[name] for name in COUNTS if name in record}
        if (run := self._run()) is not None:
            self._send(run, partial(run.summary.update, prefixed(summary)))
            if self._findings and not run.disabled:
                self._send(run, partial(self._log_table, run))
                files = [] if self.files_of_run is None else files_in(self.files_of_run())
                self._send(run, *([partial(_log_files, run, files)] if files else []))

    def _log_table(self, run: wandb.Run) -> None:
        table = wandb.Table(columns=list(COLUMNS), data=[list(row_of(finding)) for finding in self._findings])
        run.log(prefixed({TABLE: table}), commit=False)

    def _run(self) -> wandb.Run | None:
        return wandb.run if self._given is None else self._given

    def _send(self, run: wandb.Run, *calls: Callable[[], object]) -> None:
        """Make the calls and wait: the answer to a question after them shows that they have been taken."""
        self._settled()
        self._under_way = on_thread(partial(_one_by_one, *calls, run.status), THREAD)
        self._settled().result()

    def _settled(self) -> Future[None]:
        """What was under way, ended. A process that hangs is waited for once."""
        self._late = not wait([self._under_way], 0 if self._late else DEADLINE_S).done
        if self._late:
            raise TimeoutError("wandb's background process does not answer; nothing more is sent until it does")
        ended, self._under_way = self._under_way, NOTHING
        return ended
