"""The command line: run, demo, explain, rules, replay, report. Commands import what they need when they run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import typer
import typer.main

from ctcguard import __version__
from ctcguard.errors import CTCGuardError
from ctcguard.program import Program
from ctcguard.runner import MISUSED, check, run, say

# Click's UsageError, for which typer has no public name.
BadUsage = cast("type[typer.BadParameter]", typer.BadParameter.__base__)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"max_content_width": 120})


class OnError(StrEnum):
    """The values of ``on_error`` (a test compares them with those of the settings, which are slow to import)."""

    RAISE = "raise"
    STOP = "stop"
    ALERT = "alert"
    LOG = "log"


class Run(NamedTuple):
    """What ``ctcguard run`` was asked for. It starts when the command line itself is done with."""

    program: Program
    settings: dict[str, Any]


@app.callback(invoke_without_command=True)
def ctcguard(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A training monitor for CTC losses: stops a run at the first bad step, with the cause and the fix."""
    if version:
        typer.echo(f"ctcguard {__version__}")
    elif context.invoked_subcommand is None:
        raise CTCGuardError("say what to do: ctcguard run, demo, explain or rules (ctcguard --help shows more)")


@app.command("run", context_settings={"allow_interspersed_args": False})
def run_command(
    program: Annotated[
        list[str] | None, typer.Argument(metavar="(SCRIPT | -m MODULE) ARGS…", help="What to run, as python would.")
    ] = None,
    module: Annotated[bool, typer.Option("-m", help="Run a module, as python -m does.")] = False,
    on_error: Annotated[OnError | None, typer.Option(help="What an error does to the run; raise by default.")] = None,
    findings: Annotated[Path | None, typer.Option(help="The findings file.", metavar="FILE")] = None,
    select: Annotated[list[str] | None, typer.Option(help="Rules to check.", metavar="CODES")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Rules to leave out.", metavar="CODES")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where files go.", metavar="DIR")] = None,
    probe_model: Annotated[bool, typer.Option("--probe-model", help="Run the model again, once.")] = False,
) -> Run:
    """Run an unchanged script under guard. Options after SCRIPT are the script's; exit code 3: a rule stopped it."""
    if not program:
        raise CTCGuardError("say what to run: ctcguard run SCRIPT ARGS… or ctcguard run -m MODULE ARGS…")
    given = {
        "on_error": on_error and on_error.value,
        "findings": findings and findings.absolute(),
        "select": select and _codes(select),
        "ignore": ignore and _codes(ignore),
        "run_dir": run_dir and run_dir.absolute(),
        "probe_model": probe_model,
    }
    settings = {name: value for name, value in given.items() if value}
    wanted = Run(Program(program[0], tuple(program[1:]), module), settings)
    check(*wanted)
    return wanted


def _codes(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(code.strip() for option in options for code in option.split(",") if code.strip())


@app.command()
def demo(
    case: Annotated[str | None, typer.Option(help="Only this case.", metavar="NAME")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Under half a minute in all.")] = False,
) -> int:
    """Train a small speech recogniser under guard: healthy, and with the mistakes that people make."""
    from ctcguard.demo import run_demo

    return int(run_demo(case, quick) or 0)


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(metavar="CODE", help="Code or name: CTC402, 402, negative-loss.")],
) -> None:
    """Print the manual page of a rule."""
    from ctcguard import rule_pages

    text = rule_pages.page(rule_pages.find(rule))
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


@app.command()
def rules(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
    docs: Annotated[Path | None, typer.Option(help="Write a Markdown page per rule into DIR.", metavar="DIR")] = None,
    compare: Annotated[bool, typer.Option("--check", help="With --docs: write nothing, name what is stale.")] = False,
) -> int:
    """List the rules."""
    from ctcguard import rule_pages

    if compare and docs is None:
        raise CTCGuardError("--check compares the pages of --docs DIR: name that directory")
    if docs is not None:
        return _compare(docs) if compare else _write(docs)
    if as_json:
        typer.echo(json.dumps(rule_pages.records(), indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(rule_pages.table())
    else:
        typer.echo("\n".join("\t".join(row) for row in rule_pages.rows()))
    return 0


@app.command()
def replay(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A <step>-<code>.safetensors of a run directory.")],
) -> int:
    """Judge a recorded call again, without its framework. Exit code 3: an error is found."""
    from ctcguard.replay import replay as replayed

    return replayed(record)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run directory, which holds findings.jsonl.")],
    output: Annotated[
        Path | None, typer.Option(help="Where the page goes; report.html in RUN_DIR by default.", metavar="FILE")
    ] = None,
) -> int:
    """Write what happened in a run as one HTML page, which opens from disk."""
    from ctcguard.report import write_report

    typer.echo(write_report(run_dir, output))
    return 0


def _write(folder: Path) -> int:
    from ctcguard import rule_pages

    typer.echo(f"{len(rule_pages.write(folder))} pages in {folder}")
    return 0


def _compare(folder: Path) -> int:
    from ctcguard import rule_pages

    wrong = rule_pages.stale(folder)
    if wrong:
        say(f"not up to date: {', '.join(map(str, wrong))}; write them with: ctcguard rules --docs {folder}")
    return min(len(wrong), 1)


def _first_command(words: Sequence[str]) -> Sequence[str]:
    return [word for word in words[:1] if not word.startswith("-")]


def main(args: Sequence[str] | None = None) -> int:
    """The entry point.

    Parameters
    ----------
    args : sequence of str, optional
        Those of the process when not given.

    Returns
    -------
    int
        The exit code. ``ctcguard run`` leaves with the exception of its program, when there is one.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        result = typer.main.get_command(app)(words, prog_name="ctcguard", standalone_mode=False)
    except CTCGuardError as error:
        say(str(error))
        return MISUSED
    except BadUsage as error:
        command = error.ctx.command_path if error.ctx else " ".join(["ctcguard", *_first_command(words)])
        hint = "; what comes after SCRIPT belongs to it" if command == "ctcguard run" else ""
        say(f"{error.format_message().rstrip('.')} (see {command} --help{hint})")
        return MISUSED
    except typer.Abort:
        return 130
    if isinstance(result, Run):
        run(*result)
        return 0
    return int(result or 0)
