"""The file of one recorded call: arrays as safetensors, everything else as JSON in its metadata (docs/record.md)."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from ctcguard._array import HostArray
from ctcguard.errors import RecordError
from ctcguard.finding import Finding, Where
from ctcguard.provenance import Provenance, Step
from ctcguard.verdict import Verdict
from ctcguard.vocabulary import Vocabulary

FORMAT, VERSION = "ctcguard-record", 1
READING, HISTORY = "readings.", "history."
"""What the names of tensors begin with that hold readings, and columns of the reading ``history``."""
CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
"""What safetensors calls a dtype."""
NAMES = {code: name for name, code in CODES.items()}
FIELDS = frozenset({
    "ctcguard", "versions", "time", "where", "provenance", "unknown", "settings", "rules", "readings", "findings",
    "verdicts", "healthy", "kept", "ids", "texts", "vocabulary", "left_out",
})  # fmt: skip
"""What the JSON of a record holds."""
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON lacks, as findings.jsonl writes them too."""
NOTE_BYTES = 512
"""Room for saying what was left out, and for the place of ``scores`` in the header."""


class Tensor(NamedTuple):
    """An array with the name of its dtype.

    Attributes
    ----------
    values : array
        On the host, C-contiguous; bfloat16 as uint16.
    dtype : str
        For instance ``"bfloat16"``.
    """

    values: HostArray
    dtype: str

    @classmethod
    def of(cls, values: Any) -> Tensor:
        """A numpy array as it is."""
        array = np.ascontiguousarray(values).reshape(np.shape(values))
        return cls(array, array.dtype.name)


@dataclass(frozen=True)
class Record:
    """One recorded call, as it was read.

    Attributes
    ----------
    about : dict
        The JSON of the metadata.
    arrays : dict of array
        By name; bfloat16 as float32, which holds the same numbers.
    """

    about: dict[str, Any]
    arrays: dict[str, HostArray]

    @property
    def where(self) -> Where:
        """The moment of the run, the function and the user's line."""
        return Where.model_validate(self.about["where"])

    @property
    def scores(self) -> HostArray | None:
        """What the loss was given, (kept utterances, kept frames, classes): log-probs or logits; None if not kept."""
        return self.arrays.get("scores")

    @property
    def kept(self) -> tuple[int, ...]:
        """Indices in the batch of the utterances whose scores were kept, in their order."""
        return tuple(self.about["kept"])

    @property
    def is_whole(self) -> bool:
        """Whether the scores of all utterances were kept, in the order of the batch, with all frames."""
        facts, scores = self.about["readings"], self.scores
        whole = (facts["batch"], facts["frames"], facts["classes"])
        return scores is not None and scores.shape == whole and self.kept == tuple(range(facts["batch"]))

    @property
    def ids(self) -> tuple[str | None, ...]:
        """Name of each utterance of the batch, where the user gave one."""
        return tuple(self.about["ids"])

    @property
    def texts(self) -> tuple[str | None, ...]:
        """Transcript of each utterance of the batch, where the symbols are known."""
        return tuple(self.about["texts"])

    @cached_property
    def provenance(self) -> Provenance:
        """How the scores were made."""
        made = self.about["provenance"]
        steps = tuple(Step(**{**step, "shape": tuple(step["shape"])}) for step in made["steps"])
        return Provenance(steps, made["reaches_head"])

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """What the classes mean, where that was known."""
        kept = self.about["vocabulary"]
        if kept is None:
            return None
        symbols = {int(i): symbol for i, symbol in kept["symbols"].items()}
        shown = symbols | {int(i): text for i, text in kept["shown"].items()}

        def decode(labels: list[int]) -> str:
            return "".join(shown.get(label, "\N{REPLACEMENT CHARACTER}") for label in labels)

        names = ("size", "blank", "unknown", "bos", "eos", "kind")
        facts = {name: kept[name] for name in names}
        return Vocabulary(symbols=symbols, special=frozenset(kept["special"]), _decode=decode, **facts)

    @cached_property
    def readings(self) -> dict[str, Any]:
        """What was measured and known of the call when it was judged, by name."""
        found = {name: _from_json(value) for name, value in self.about["readings"].items()}
        found |= self._tensors(READING)
        if history := self._tensors(HISTORY):
            found["history"] = history
        found["provenance"] = self.provenance
        return found | ({} if self.vocabulary is None else {"vocabulary": self.vocabulary})

    def _tensors(self, prefix: str) -> dict[str, HostArray]:
        return {name[len(prefix) :]: array for name, array in self.arrays.items() if name.startswith(prefix)}

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules found in the call."""
        return tuple(map(_finding, self.about["findings"]))

    @property
    def healthy(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Rules that ran and found nothing: code, and the codes that they could have explained."""
        return tuple((code, tuple(explained)) for code, explained in self.about["healthy"])

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the run said of the call: the first is the worst."""
        return tuple(
            Verdict(
                root=_finding(verdict["root"]),
                also=tuple(map(_finding, verdict["also"])),
                ruled_out=tuple(verdict["ruled_out"]),
                action=verdict["action"],
            )
            for verdict in self.about["verdicts"]
        )


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding with all of its fields."""
    hidden = {"affected": sorted(finding.affected), "everywhere": finding.everywhere, "ranks": finding.ranks}
    return finding.model_dump(mode="json") | hidden


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict with its findings whole."""
    return {
        "root": finding_json(verdict.root),
        "also": [finding_json(finding) for finding in verdict.also],
        "ruled_out": list(verdict.ruled_out),
        "action": verdict.action,
    }


def provenance_json(made: Provenance) -> dict[str, Any]:
    """The steps from the head to the loss."""
    return {"steps": [asdict(step) for step in made.steps], "reaches_head": made.reaches_head}


def vocabulary_json(known: Vocabulary | None) -> dict[str, Any] | None:
    """The symbols, and how those are shown in a text that are not shown as they are (a word delimiter as a space)."""
    if known is None:
        return None
    shown = {label: known.text([label]) for label in known.symbols}
    return {
        "symbols": {str(i): symbol for i, symbol in known.symbols.items()},
        "shown": {str(i): text for i, text in shown.items() if text != known.symbols[i]},
        "size": known.size,
        "blank": known.blank,
        "unknown": known.unknown,
        "bos": known.bos,
        "eos": known.eos,
        "special": sorted(known.special),
        "kind": known.kind,
    }


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples as lists, NaN and infinities as in `NOT_FINITE`.

    Raises
    ------
    TypeError
        For an object that JSON has no form for.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def _from_json(value: Any) -> Any:
    """A reading again: lists as tuples, numbers that are not finite as numbers."""
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict):
        return {name: _from_json(item) for name, item in value.items()}
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _finding(body: dict[str, Any]) -> Finding:
    return Finding.model_validate(body)


def write(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor], limit_bytes: int) -> None:
    """Write a record under a temporary name, then give it its own: it is there as a whole or not at all.

    Parameters
    ----------
    path : Path
        Its directory is made too; a file of that name is replaced.
    about : mapping
        JSON values; ``kept`` names the utterances of the tensor ``scores``, (kept, frames, classes).
    tensors : mapping of str to Tensor
        By name.
    limit_bytes : int
        Size of the whole file. To stay under it, the last utterances of ``scores`` are left out, then the last frames
        of the first one, then ``scores``; ``about`` then says so.

    Raises
    ------
    RecordError
        When all else is larger than that already.
    OSError
        From the file system.
    """
    header, data = _encoded(about, tensors)
    if len(header) + _size(data) > limit_bytes:
        header, data = _encoded(*_smaller(about, tensors, limit_bytes))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(header)
            for values in data:  # without holding the interpreter, which the training needs (serialize_file would)
                file.write(values.reshape(-1).view(np.uint8).data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _smaller(
    about: Mapping[str, Any], tensors: Mapping[str, Tensor], limit_bytes: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """As much of the scores as there is room for."""
    others = {name: tensor for name, tensor in tensors.items() if name != "scores"}
    header, data = _encoded(about, others)
    room = limit_bytes - len(header) - _size(data) - NOTE_BYTES
    if room < 0 or "scores" not in tensors:
        least, given = (len(header) + _size(data) + NOTE_BYTES) / 1e6, limit_bytes / 1e6
        raise RecordError(f"a record needs {least:.3g} MB beside the scores, but record_mb is {given:.3g}")
    values, dtype = tensors["scores"]
    of_utterance, of_frame = values[0].nbytes, values[0, 0].nbytes
    fitting = values[: room // of_utterance] if room >= of_utterance else values[:1, : room // of_frame]
    kept = list(about["kept"])[: len(fitting)] if fitting.size else []
    what = f"{len(kept)} of {len(values)} utterances" if room >= of_utterance else f"{fitting.shape[1]} frames of one"
    said = {**about, "kept": kept, "left_out": {**about["left_out"], "scores": f"record_mb has room for {what}"}}
    return said, others | ({"scores": Tensor(np.ascontiguousarray(fitting), dtype)} if kept else {})


def _size(data: Sequence[HostArray]) -> int:
    return sum(values.nbytes for values in data)


def _encoded(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[bytes, list[HostArray]]:
    """The beginning of a safetensors file (length of the header, header), and the arrays that come after it."""
    metadata = {"format": FORMAT, "version": str(VERSION), "record": json.dumps(about, allow_nan=False)}
    header: dict[str, Any] = {"__metadata__": metadata}
    end, data = 0, []
    for name, (values, dtype) in sorted(tensors.items(), key=lambda item: (-item[1].values.itemsize, item[0])):
        start, end = end, end + values.nbytes
        header[name] = {"dtype": CODES[dtype], "shape": list(values.shape), "data_offsets": [start, end]}
        data.append(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, data


def read(path: Path) -> Record:
    """Read a record.

    Raises
    ------
    RecordError
        One line: no such file, no record, or one of a version that this ctcguard does not know.
    """
    try:
        content = path.read_bytes()
        length = struct.unpack_from("<Q", content)[0]
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        items: list[tuple[str, dict[str, Any]]] = deserialize(content)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from None
    except (SafetensorError, struct.error, ValueError, AttributeError) as error:
        raise RecordError(f"{path} is no record of ctcguard: it is no whole safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise RecordError(f"{path} is no record of ctcguard: a safetensors file without its metadata")
    if metadata.get("version") != str(VERSION):
        made = metadata.get("version")
        raise RecordError(f"{path} is a record of version {made}; this ctcguard reads version {VERSION}: upgrade it")
    about = json.loads(metadata.get("record", "{}"))
    lacking = FIELDS - set(about)
    if lacking:
        raise RecordError(f"{path} is no record of ctcguard: its metadata lacks {', '.join(sorted(lacking))}")
    return Record(about, {name: _array(item) for name, item in items})


def _array(item: Mapping[str, Any]) -> HostArray:
    code, shape = item["dtype"], item["shape"]
    if code == "BF16":
        upper = np.frombuffer(item["data"], dtype="<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    return np.frombuffer(item["data"], dtype=np.dtype(NAMES[code]).newbyteorder("<")).reshape(shape)
