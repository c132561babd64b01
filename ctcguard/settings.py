"""Settings: keyword arguments, then ``CTCGUARD_*``, then ``[tool.ctcguard]`` in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from ctcguard.errors import SettingsError
from ctcguard.finding import Severity
from ctcguard.rules import ALL, Rule, rule_named
from ctcguard.vocabulary import Vocabulary

PREFIX = "CTCGUARD_"
Action = Literal["raise", "stop", "alert", "log"]
ACTIONS: tuple[Action, ...] = ("raise", "stop", "alert", "log")


class Settings(BaseSettings):
    """Everything that can be set, with its default.

    Attributes
    ----------
    on_error, on_warning : {"raise", "stop", "alert", "log"}
        What happens on a finding of that severity. ``raise``: training ends before the weights are touched; ``stop``:
        it ends gracefully; ``alert``: it is shown and sent to wandb; ``log``: it is only written to findings.jsonl.
        Findings in evaluation never do more than alert: no weights are at stake there.
    select, ignore : tuple of str
        Codes or their beginnings (``"CTC4"``) or names; the longest match wins, ``ignore`` on a tie.
    thresholds : dict
        Rule name or code to threshold to value: ``{"unnormalised-log-probs": {"hint_nats": 0.02}}``.
    budget : float or None
        The share of the time that the guard may take. Over it, sampled measurements are made less often; checks of
        targets, lengths and losses never are. None (in the environment: none) for no limit, and for measurements at
        the same steps in every run.
    vocabulary : tokenizer, processor, list, dict or int, optional
        What the classes mean; keyword only.
    strict : bool
        Check targets before the loss is called even where that waits for the device (CUDA).
    probe_model : bool
        PyTorch: before the first update, run the model again on changed batches (CTC801 to CTC803); once in a run.
    record_mb : float
        Size of the file in which the first call with each code is kept, in millions of bytes; 0 keeps none.
    redact : bool
        Write and show no transcript, label sequence or utterance name, anywhere; records then hold no scores either.
    run_dir : Path, optional
        Where files go; ``ctcguard-runs/<time>-<process>`` by default.
    findings : Path, optional
        The findings file; ``<run_dir>/findings.jsonl`` by default.
    sinks : {"auto", "none"} or tuple of str
        ``"auto"`` is the console, the file, and wandb where a run is active.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        pyproject_toml_table_header=("tool", "ctcguard"),
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
    )

    on_error: Action = "raise"
    on_warning: Action = "alert"
    select: Annotated[tuple[str, ...], NoDecode] = ("CTC",)
    ignore: Annotated[tuple[str, ...], NoDecode] = ()
    thresholds: dict[str, dict[str, Any]] = Field(default_factory=dict)
    budget: float | None = Field(default=0.01, gt=0, le=1)
    vocabulary: Any = None
    strict: bool = False
    probe_model: bool = False
    record_mb: float = Field(default=16.0, ge=0)
    redact: bool = False
    run_dir: Path | None = None
    findings: Path | None = None
    sinks: Literal["auto", "none"] | tuple[Literal["console", "jsonl", "wandb"], ...] = "auto"

    @field_validator("budget", mode="before")
    @classmethod
    def _no_limit(cls, value: Any) -> Any:
        """``none`` from the environment and from pyproject.toml, which have no None."""
        return None if value == "none" else value

    @field_validator("select", "ignore", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Accept one code or a comma-separated list, as the command line and the environment write it."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("select", "ignore")
    @classmethod
    def _known_codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        prefixes = []
        for part in value:
            codes = [rule.code for rule in ALL if part.lower() == rule.name()] or [part.upper()]
            if not any(rule.code.startswith(codes[0]) for rule in ALL):
                known = ", ".join(rule.code for rule in ALL)
                raise ValueError(f"{part!r} is no rule; write a code, the beginning of one, or a name: {known}")
            prefixes += codes
        return tuple(prefixes)

    @field_validator("vocabulary")
    @classmethod
    def _known_kind(cls, value: Any) -> Vocabulary | None:
        return None if value is None else Vocabulary.of(value)

    @field_validator("thresholds")
    @classmethod
    def _known_thresholds(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        by_code = {}
        for name, fields in value.items():
            rule = rule_named(name)
            by_code[rule.code] = fields
            try:
                rule(**fields)
            except ValidationError as error:
                legal = ", ".join(rule.model_fields) or "none"
                raise ValueError(f"thresholds of {rule.name()}: {_first(error)}; it has: {legal}") from None
        return by_code

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments, then the environment, then pyproject.toml."""
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    def rules(self) -> tuple[Rule, ...]:
        """The selected rules with their thresholds, in order of code."""
        return tuple(rule(**self.thresholds.get(rule.code, {})) for rule in ALL if self._selected(rule.code))

    def _selected(self, code: str) -> bool:
        def longest(prefixes: tuple[str, ...]) -> int:
            return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=-1)

        return longest(self.select) > longest(self.ignore)

    def action(self, severity: Severity, phase: str) -> Action:
        """What happens on a finding."""
        if severity is Severity.INFORMATION:
            return "log"
        wanted = self.on_error if severity is Severity.ERROR else self.on_warning
        return "alert" if phase == "eval" and wanted in ("raise", "stop") else wanted


def load(**keywords: Any) -> Settings:
    """Settings from all sources.

    Raises
    ------
    SettingsError
        One line that names what is wrong and what is legal.
    """
    legal = ", ".join(Settings.model_fields)
    unknown = [PREFIX + name for name in _environment() if name.split("__")[0].lower() not in Settings.model_fields]
    if unknown:
        raise SettingsError(
            f"environment variable {unknown[0]} is no setting of ctcguard; legal after {PREFIX}: {legal.upper()}"
        )
    try:
        return Settings(**keywords)
    except ValidationError as error:
        if error.errors()[0]["type"] == "extra_forbidden":
            name = ".".join(map(str, error.errors()[0]["loc"]))
            raise SettingsError(f"{name!r} is no setting of ctcguard; the settings are: {legal}") from None
        raise SettingsError(_first(error)) from None


def _environment() -> list[str]:
    return [name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX)]


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"{name}: {reason}" + ("" if first["type"] == "value_error" else f", not {first['input']!r}")
