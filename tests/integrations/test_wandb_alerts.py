"""The wandb sink against the real SDK: what lands in the file of a run, at a server, and what happens when wandb fails.

Everything that starts wandb runs in a process of its own (`scenario`): this file, called with the scenario's name.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from ctcguard.errors import CTCVerdictError
from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.links import rule_url
from ctcguard.verdict import Verdict
from ctcguard_integrations import wandb_alerts
from ctcguard_integrations.wandb_alerts import WandbAlerts, alert_text, inert

END = {"type": "end", "schema": 1, "steps": 4, "calls": 9, "findings": 2, "overhead_fraction": 0.004}
HOSTILE = "<!channel> @here `x` [a](http://evil.example) <b>&</b> *b* \x1b[31m\u202e\nnew line"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs signals that stop a process")


def a_verdict(severity: Severity = Severity.ERROR, step: int = 3, **also: Any) -> Verdict:
    """The founding mistake, at some step."""
    root = Finding(
        code="CTC402",
        name="unnormalised-log-probs",
        severity=severity,
        cause="probabilities",
        evidence="every value is in [0, 1] and rows sum to 1",
        message="the classes of a frame sum to e^2.71, not 1",
        fix="pass log_softmax(x, -1) instead of softmax(x, -1)",
        step=step,
        **also,
    )
    symptom = root.model_copy(
        update={
            "code": "CTC501",
            "name": "negative-loss",
            "message": "-5.34 nats",
            "utterances": (),
            "severity": severity,
        }
    )
    return Verdict(root=root, also=(symptom,), action="alert")


# ---- in a process of its own -----------------------------------------------------------------------------------------

Tell = Callable[[int], None]


def implicit_steps(run: wandb.Run, tell: Tell) -> None:
    for i in range(4):
        tell(i)
        run.log({"loss": i})


def explicit_steps(run: wandb.Run, tell: Tell) -> None:
    for i in range(4):
        tell(i)
        run.log({"loss": i}, step=10 * i)
        tell(i)
        run.log({"lr": i}, step=10 * i)


def explicit_commits(run: wandb.Run, tell: Tell) -> None:
    for i in range(4):
        tell(i)
        run.log({"loss": i}, step=10 * i, commit=True)
        tell(i)


def rows_in_parts(run: wandb.Run, tell: Tell) -> None:
    for i in range(4):
        run.log({"loss": i}, commit=False)
        tell(i)
        run.log({"accuracy": i})


def now_and_then(run: wandb.Run, tell: Tell) -> None:
    for i in range(9):
        tell(i)
        if i % 4 == 0:
            run.log({"loss": i}, step=i)


def mixed(run: wandb.Run, tell: Tell) -> None:
    for i in range(6):
        tell(i)
        run.log({"loss": i})
        tell(i)
        if i % 2:
            run.log({"eval": i}, step=100 * i)
        if i == 3:
            run.log({"too late": i}, step=1)
    tell(6)


def hugging_face(run: wandb.Run, tell: Tell) -> None:
    """As transformers' WandbCallback does it."""
    run.define_metric("train/global_step")
    run.define_metric("*", step_metric="train/global_step", step_sync=True)
    for i in range(1, 7):
        tell(i - 1)
        if i % 2 == 0:
            run.log({"train/loss": i, "train/global_step": i})
        if i == 4:
            run.log({"eval/loss": i, "train/global_step": i})
    tell(6)


def nothing_logged(run: wandb.Run, tell: Tell) -> None:
    for i in range(3):
        tell(i)


STYLES = (
    implicit_steps,
    explicit_steps,
    explicit_commits,
    rows_in_parts,
    now_and_then,
    mixed,
    hugging_face,
    nothing_logged,
)


def offline(**settings: Any) -> wandb.Run:
    return wandb.init(
        mode="offline", settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, **settings)
    )


def caught(call: Callable[[], None]) -> tuple[str, float]:
    """The exception of a call, and how long it took."""
    started = time.perf_counter()
    try:
        call()
    except Exception as error:  # noqa: BLE001 - it is what the scenario reports
        return f"{type(error).__name__}: {error}", time.perf_counter() - started
    return "", time.perf_counter() - started


def everything(sink: WandbAlerts) -> None:
    sink.finding(a_verdict().root)
    sink.readings({"loss_max_nats": 1.0}, 0)
    sink.verdict(a_verdict())
    sink.end(END)


def styled(style: Callable[[wandb.Run, Tell], None], guarded: bool) -> str:
    run = offline()
    sink = WandbAlerts()

    def tell(step: int) -> None:
        if guarded:
            sink.readings({"loss_max_nats": 10.0 * step, "overhead_fraction": 0.5}, step)

    style(run, tell)
    if guarded:
        sink.end(END)
    folder = run.dir
    run.finish()
    return folder


def scenario_offline(children: list[Any]) -> dict[str, Any]:
    """Every run that needs no server."""
    seen: dict[str, Any] = {}
    everything(WandbAlerts())
    seen["without a run"] = [wandb.run is None, len(children), len(list(Path().iterdir()))]
    run = wandb.init(mode="disabled")
    everything(WandbAlerts())
    run.finish()
    seen["disabled"] = [len(children), len(list(Path().iterdir()))]
    seen["with pauses"] = styled(nothing_logged, guarded=True)
    wandb_alerts.PAUSE_S = 0.0
    for style in STYLES:
        seen[style.__name__] = [styled(style, guarded=False), styled(style, guarded=True)]
    run = offline()
    sink = WandbAlerts()
    for severity in reversed(Severity):
        sink.verdict(a_verdict(severity, step=3 - severity.rank))
    sink.verdict(a_verdict(Severity.WARNING, step=4, utterances=(Utterance(index=0, text=HOSTILE),)))
    sink.end(END)
    seen["alerts"] = run.dir
    run.finish()
    stale, unbound = WandbAlerts(run), WandbAlerts()
    told = {"verdict": (a_verdict(),), "readings": ({}, 0), "end": (END,)}
    seen["stale"] = {
        method: caught(lambda m=method, v=values: getattr(stale, m)(*v)) for method, values in told.items()
    }
    seen["finished"] = caught(lambda: everything(unbound))
    return seen


def scenario_dead(children: list[Any]) -> dict[str, Any]:
    """A background process that hangs, comes back, and is killed."""
    wandb_alerts.PAUSE_S, usual = 0.0, wandb_alerts.DEADLINE_S
    offline()
    alerting, logging = WandbAlerts(), WandbAlerts()
    row = {f"loss_{i}_nats": 1.0 for i in range(50)}
    logging.readings(row, 0)
    seen: dict[str, Any] = {"children": len(children)}
    wandb_alerts.DEADLINE_S = 0.5
    children[0].send_signal(signal.SIGSTOP)
    seen["hanging"] = [caught(lambda: alerting.verdict(a_verdict())), caught(lambda: alerting.end(END))]
    seen["flood"] = [caught(lambda: logging.readings(row, 1)) for _ in range(2000)]
    children[0].send_signal(signal.SIGCONT)
    time.sleep(0.5)
    wandb_alerts.DEADLINE_S = usual  # it lives, if slowly
    seen["back"] = [caught(lambda: alerting.verdict(a_verdict())), caught(lambda: logging.end(END))]
    children[0].kill()
    children[0].wait()
    seen["killed"] = [caught(lambda: alerting.verdict(a_verdict())), caught(lambda: alerting.end(END))]
    logging.readings(row, 2)
    seen["killed"].append(caught(lambda: logging.readings(row, 3)))
    return seen


def trained(**settings: Any) -> None:
    """A training in PyTorch that is stopped at its first call."""
    import torch

    from ctcguard import watch

    with suppress(CTCVerdictError), watch(vocabulary=["<blank>", HOSTILE, "b"], **settings):
        scores = torch.randn(30, 2, 3, requires_grad=True).softmax(-1)
        torch.nn.functional.ctc_loss(scores, torch.tensor([[1, 2, 1]] * 2), (30, 28), (3, 2))


def scenario_files(children: list[Any]) -> dict[str, Any]:
    """Two trainings that are stopped; of the second, nothing that was said may leave the machine."""
    seen: dict[str, Any] = {}
    for name, redact in (("open", False), ("redacted", True)):
        run = offline()
        started = time.perf_counter()
        trained(run_dir=name, redact=redact)
        seen[name] = {"folder": run.dir, "id": run.id, "seconds": time.perf_counter() - started}
        run.finish()
    return seen


def scenario_online(children: list[Any]) -> dict[str, Any]:
    """Two alerts of one title, then the exception of the guard, as in a training that is stopped."""
    wandb.init(project="speech", settings=wandb.Settings(console="off", x_disable_stats=True))
    sink = WandbAlerts()
    sink.verdict(a_verdict(Severity.WARNING))
    sink.verdict(a_verdict())
    trained(run_dir="run")
    raise CTCVerdictError(a_verdict())


def main(name: str) -> None:
    children: list[Any] = []
    original = subprocess.Popen.__init__

    def recording(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if "wandb-core" in str(self.args):
            children.append(self)

    subprocess.Popen.__init__ = recording  # type: ignore[method-assign]
    print(json.dumps(globals()[f"scenario_{name}"](children)))


# ---- tests -----------------------------------------------------------------------------------------------------------


def scenario(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    folders = dict.fromkeys(("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"), str(folder / "elsewhere"))
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # a process of its own
    variables = {**own, **folders, "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", **environment}
    (folder / "work").mkdir()
    return subprocess.run(
        [sys.executable, __file__, name],
        cwd=folder / "work",
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def records(folder: str) -> Iterator[Record]:
    """The records of an offline run: a LevelDB log after a header of seven bytes, in blocks of 32 KiB."""
    (path,) = Path(folder).parent.glob("*.wandb")
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(part, zlib.crc32(bytes([kind])))
        position, record = position + 7 + length, record + part
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(record)
            record = b""


def items(found: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found}


def rows(folder: str) -> list[tuple[int, dict[str, Any]]]:
    """Step and values of each row of the history, without wandb's clocks."""
    found = [r.history for r in records(folder) if r.WhichOneof("record_type") == "history"]
    return [(row.step.num, {k: v for k, v in items(row.item).items() if not k.startswith("_")}) for row in found]


def summary(folder: str) -> dict[str, Any]:
    """The last value of each key of the summary."""
    last: dict[str, Any] = {}
    for record in records(folder):
        last |= items(record.summary.update)
    return {name: value for name, value in last.items() if not name.startswith("_")}


def ours(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name.startswith("ctcguard/")}


def others(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("ctcguard/")}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = scenario("offline", tmp_path_factory.mktemp("offline"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_an_active_run_nothing_is_started(seen: dict[str, Any]) -> None:
    assert seen["without a run"] == [True, 0, 0]


def test_a_disabled_run_takes_everything_and_keeps_nothing(seen: dict[str, Any]) -> None:
    assert seen["disabled"] == [0, 0]


@pytest.mark.parametrize("style", [style.__name__ for style in STYLES])
def test_the_rows_of_the_user_keep_their_steps_and_values(seen: dict[str, Any], style: str) -> None:
    plain, guarded = seen[style]
    with_readings = rows(guarded)
    assert [(step, others(row)) for step, row in with_readings if others(row)] == rows(plain)
    assert others(summary(guarded)) == summary(plain)
    steps = [step for step, _ in with_readings]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("style", [style.__name__ for style in STYLES])
def test_readings_arrive_with_their_own_step(seen: dict[str, Any], style: str) -> None:
    found = [ours(row) for _, row in rows(seen[style][1]) if ours(row)]
    assert found
    assert all(row["ctcguard/loss_max_nats"] == 10 * row["ctcguard/step"] for row in found)
    metrics = [r.metric for r in records(seen[style][1]) if r.WhichOneof("record_type") == "metric"]
    assert {m.name: m.step_metric for m in metrics}["ctcguard/loss_max_nats"] == "ctcguard/step"


def test_of_readings_in_quick_succession_one_is_sent(seen: dict[str, Any]) -> None:
    assert [ours(row)["ctcguard/step"] for _, row in rows(seen["with pauses"])] == [0]


@pytest.mark.parametrize("style", [style.__name__ for style in STYLES])
def test_the_summary_of_a_healthy_run_says_so(seen: dict[str, Any], style: str) -> None:
    assert ours(summary(seen[style][1])) == {
        "ctcguard/verdict": "healthy",
        "ctcguard/overhead_fraction": 0.004,
        "ctcguard/findings": 2,
        "ctcguard/steps": 4,
        "ctcguard/calls": 9,
    }


def test_alerts_are_in_the_file_of_an_offline_run(seen: dict[str, Any]) -> None:
    alerts = [r.alert for r in records(seen["alerts"]) if r.WhichOneof("record_type") == "alert"]
    assert [(alert.title, alert.level) for alert in alerts] == [
        ("CTC402 unnormalised-log-probs at step 1", "INFO"),
        ("CTC402 unnormalised-log-probs at step 2", "WARN"),
        ("CTC402 unnormalised-log-probs at step 3", "ERROR"),
        ("CTC402 unnormalised-log-probs at step 4", "WARN"),
    ]
    assert all(len(alert.title) < 64 and alert.wait_duration == 1 for alert in alerts)
    assert "<!channel>" not in alerts[-1].text


def test_the_summary_carries_the_worst_verdict(seen: dict[str, Any]) -> None:
    found = summary(seen["alerts"])
    assert found["ctcguard/verdict"] == "CTC402 probabilities"
    assert found["ctcguard/verdict_severity"] == "error"
    assert found["ctcguard/verdict_step"] == 3
    assert found["ctcguard/findings"] == 2


def test_a_finished_run_is_left_alone_and_a_stale_one_is_refused(seen: dict[str, Any]) -> None:
    assert seen["finished"][0] == ""
    for error, _ in seen["stale"].values():
        assert "UsageError: Run" in error
        assert "is finished" in error


@pytest.fixture(scope="module")
def handed_on(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = scenario("files", tmp_path_factory.mktemp("files"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def artifacts(folder: str) -> list[Any]:
    found = (record.artifact for record in records(folder) if record.WhichOneof("record_type") == "artifact")
    return [artifact for artifact in found if artifact.type == "ctcguard"]


def test_the_report_and_the_records_are_an_artifact(handed_on: dict[str, Any]) -> None:
    run = handed_on["open"]
    (artifact,) = artifacts(run["folder"])
    assert artifact.name == f"ctcguard-{run['id']}"
    assert sorted(entry.path for entry in artifact.manifest.contents) == [
        "0-CTC402.safetensors",
        "findings.jsonl",
        "readings.jsonl",
        "report.html",
    ]
    assert summary(run["folder"])["ctcguard/artifact"].startswith(artifact.name)


def test_the_alert_names_the_run_directory_unless_nothing_may_leave(handed_on: dict[str, Any]) -> None:
    def sent(folder: str) -> str:
        (alert,) = [r.alert for r in records(folder) if r.WhichOneof("record_type") == "alert"]
        return alert.text

    assert "look: `ctcguard report " in sent(handed_on["open"]["folder"])
    assert "ctcguard report" not in sent(handed_on["redacted"]["folder"])


def tables(folder: str) -> list[dict[str, Any]]:
    start = "ctcguard/findings_table/"
    found = [{k.removeprefix(start): v for k, v in row.items() if k.startswith(start)} for _, row in rows(folder)]
    return [table for table in found if table]


def test_the_findings_are_a_table(handed_on: dict[str, Any]) -> None:
    folder = handed_on["open"]["folder"]
    (table,) = tables(folder)
    assert (table["_type"], table["ncols"]) == ("table-file", len(wandb_alerts.COLUMNS))
    body = json.loads(Path(folder, table["path"]).read_text("utf-8"))
    assert body["columns"] == list(wandb_alerts.COLUMNS)
    assert [row[2].split()[0] for row in body["data"]] == ["CTC401", "CTC402", "CTC501"]


def test_with_redact_no_file_leaves(handed_on: dict[str, Any]) -> None:
    folder = handed_on["redacted"]["folder"]
    assert artifacts(folder) == []
    assert "ctcguard/artifact" not in summary(folder)
    (path,) = Path(folder).parent.glob("*.wandb")
    assert b"evil.example" not in path.read_bytes()
    assert len(tables(folder)) == 1, "what the rules measured may leave"


def test_of_too_many_records_the_first_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_alerts, "ARTIFACT_BYTES", 250)
    monkeypatch.setattr(wandb_alerts, "missing", lambda: ["plotly"])
    assert wandb_alerts.files_in(tmp_path) == []
    for number in range(3):
        path = tmp_path / f"{number}-CTC402.safetensors"
        path.write_bytes(b"x" * 100)
        os.utime(path, (100 + number, 100 + number))
    assert [path.name for path in wandb_alerts.files_in(tmp_path)] == ["0-CTC402.safetensors", "1-CTC402.safetensors"]


def test_the_axis_of_the_charts_is_no_chart(seen: dict[str, Any]) -> None:
    metrics = [r.metric for r in records(seen["implicit_steps"][1]) if r.WhichOneof("record_type") == "metric"]
    hidden = {metric.name: metric.options.hidden for metric in metrics}
    assert hidden["ctcguard/step"]
    assert not hidden["ctcguard/loss_max_nats"]


@posix_only
def test_a_hanging_or_killed_backend_never_holds_the_training(tmp_path: Path) -> None:
    done = scenario("dead", tmp_path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[0])
    assert seen["children"] == 1
    silent = "TimeoutError: wandb's background process does not answer"
    assert all(error.startswith(silent) and seconds < 2 for error, seconds in seen["hanging"])
    errors = [error[: len(silent)] for error, _ in seen["flood"]]
    assert errors == sorted(errors), "taken while there is room, refused from then on"
    assert set(errors) == {"", silent}
    assert sum(seconds for _, seconds in seen["flood"]) < 20
    assert [error for error, _ in seen["back"]] == ["", ""]
    assert all(error.startswith("ConnectionResetError") and seconds < 2 for error, seconds in seen["killed"])


def test_the_alert_arrives_at_a_server_before_the_exception_ends_the_run(tmp_path: Path) -> None:
    place = importlib.util.spec_from_file_location("graphql_server", Path(__file__).with_name("graphql_server.py"))
    assert place is not None
    helper = importlib.util.module_from_spec(place)
    place.loader.exec_module(helper)  # type: ignore[union-attr]
    with helper.serving() as server:
        done = scenario("online", tmp_path, WANDB_MODE="online", WANDB_BASE_URL=server.url, WANDB_API_KEY="a" * 40)
        alerts = server.variables("NotifyScriptableRunAlert")
        buckets = server.variables("UpsertBucket")
    assert done.returncode == 1
    assert "CTCVerdictError" in done.stderr
    assert [alert["severity"] for alert in alerts] == ["WARN", "ERROR", "ERROR"]
    assert {alert["title"] for alert in alerts[:2]} == {"CTC402 unnormalised-log-probs at step 3"}
    assert {alert["waitDuration"] for alert in alerts} == {1}
    assert "pass log_softmax(x, -1) instead of softmax(x, -1)" in alerts[1]["text"]
    assert alerts[1]["text"].endswith("/docs/rules/CTC402-unnormalised-log-probs.md")
    assert buckets[0]["project"] == "speech"


def test_the_sdk_has_what_the_sink_uses() -> None:
    assert {"title", "text", "level", "wait_duration"} <= set(inspect.signature(wandb.Run.alert).parameters)
    assert "commit" in inspect.signature(wandb.Run.log).parameters
    assert {"step_metric", "summary"} <= set(inspect.signature(wandb.Run.define_metric).parameters)
    assert {level.value for level in wandb.AlertLevel} == set(wandb_alerts.LEVELS.values())


def test_the_text_says_everything() -> None:
    named = (Utterance(index=1, id="clip-7", text="seven nine", note="5 frames for 7 labels"),)
    text = alert_text(a_verdict(utterances=named, source="torch.ctc_loss", call_site="train.py:88"))
    assert text.splitlines() == [
        "`CTC402 unnormalised-log-probs · error · step 3`",
        "at: `torch.ctc_loss at train.py:88`",
        "`the classes of a frame sum to e^2.71, not 1`",
        "cause: `probabilities: every value is in [0, 1] and rows sum to 1`",
        "fix: `pass log_softmax(x, -1) instead of softmax(x, -1)`",
        "in: `utterance 1 id clip-7 'seven nine': 5 frames for 7 labels`",
        "also: `CTC501 negative-loss (-5.34 nats)`",
        "more: `ctcguard explain CTC402`",
        rule_url("CTC402", "unnormalised-log-probs"),
    ]


def test_the_text_says_where_to_look_now_and_later() -> None:
    place = {"folder": Path("runs/1"), "run_url": "https://wandb.example/team/project/runs/abc"}
    assert alert_text(a_verdict(), **place).splitlines()[-3:] == [
        "look: `ctcguard report runs/1`",
        "at the end of the run: https://wandb.example/team/project/runs/abc/artifacts",
        rule_url("CTC402", "unnormalised-log-probs"),
    ]
    offline = alert_text(a_verdict(), place["folder"], None)
    assert "end of the run" not in offline
    assert "look: `ctcguard report runs/1`" in offline


def test_text_from_data_sets_is_only_text() -> None:
    line = inert(HOSTILE + " www.evil.example mailto:a@evil.example ![i][j]")
    assert line.startswith("`&lt;!channel&gt;")
    assert line.count("`") == 2
    assert not any(active in line for active in ("<", ">", "@here", "@evil", "](", "][", "://", "www.", "mailto:"))
    assert all(character.isprintable() or character == "\u200b" for character in line)


def test_long_text_loses_its_middle_and_the_whole_stays_short() -> None:
    line = inert("start " + "&" * 5000 + " 5 frames for 7 labels")
    assert line.startswith("`start ")
    assert line.endswith(" 5 frames for 7 labels`")
    many = tuple(Utterance(index=i, text="<@>" * 1000, id="`" * 1000, note="too long") for i in range(5))
    text = alert_text(a_verdict(utterances=many))
    assert len(text) < 3000
    assert text.endswith(".md")


def test_half_a_character_does_no_harm() -> None:
    assert inert("\ud800 a").encode() == b"`a`"


if __name__ == "__main__":
    main(sys.argv[1])
