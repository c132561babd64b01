"""From optax's terms to the guard's: one loss call, measured where it is, traced or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import prod
from operator import or_
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.sharding import PartitionSpec

from ctcguard.call import CTCCall, ctc_call
from ctcguard.errors import CallError
from ctcguard.packing import Layout, pack
from ctcguard.probes import CONTRACT, DISTRIBUTION, label_range, lengths, losses, measure
from ctcguard.probes.paddings import forward_maximum, padding_faults
from ctcguard.sound import HALF_FRAMES, NONE_WANTED
from ctcguard_integrations.jax_measured import Measured, Packed, Site

IN_CALL = ("scores", "targets", "input_lengths", "target_lengths", "losses")
ARRAYS = ("log_probs", "logits", "targets", "input_lengths", "target_lengths", "losses")
ALWAYS = np.asarray(True)
BRIEF = (lengths, label_range, losses)
"""Measured in every run; with the paddings it tells whether labels, lengths and losses are sound."""
REST = tuple(probe for probe in (*CONTRACT, *DISTRIBUTION) if probe not in BRIEF)
Expects = Literal["log_probs", "logits"]


@dataclass(frozen=True, eq=False)
class Seen:
    """A call as it was seen, not measured yet.

    Attributes
    ----------
    arrays : dict of array
        Outside of any gradient: ``scores``, ``targets``, ``input_lengths``, ``target_lengths`` and, where they are
        known, ``losses``, ``frame_paddings``, ``label_paddings``, ``phi`` and ``emit`` (the batch is their axis 1).
    expects, blank, facts
        As in `CTCCall`.
    """

    arrays: dict[str, Any]
    expects: Expects
    blank: int
    facts: dict[str, Any]

    def measured(self, room_bytes: int = 0, look: Any = ALWAYS) -> Measured:
        """Run the probes: in the program that is traced, or in one of their own. Scores that fit are kept with it.

        Where ``look`` is False when the program runs, and the call is sound, its scores are not looked at.
        """
        if len(self.arrays["scores"].shape) != 3:
            raise CallError(f"{self.expects} must be (batch, time, classes), not {self.arrays['scores'].shape}")
        options = {"expects": self.expects, "blank": self.blank, "unknown": self.facts.get("unknown")}
        packed = _anywhere(partial(_packed, **options), {**self.arrays, "look": look})
        shapes: dict[str, Any] = {name: _stand_in(array) for name, array in self.arrays.items() if name in IN_CALL}
        call = ctc_call(**{self.expects: shapes.pop("scores")}, **shapes, blank=self.blank, **self.facts)
        mesh = jax.sharding.get_abstract_mesh()
        site = Site(call, packed.brief, packed.rest, prod(mesh.shape[axis] for axis in mesh.manual_axes))
        scores = self.arrays["scores"] if self.arrays["scores"].nbytes <= room_bytes else None
        return Measured(packed.array, self.arrays["targets"], self.arrays["target_lengths"], site, scores)

    def mapped(self) -> bool:
        """Whether `jax.vmap` is at work: then this is one item of a larger batch."""
        return any(type(array).__name__ == "BatchTracer" for array in self.arrays.values())  # it has no public name

    def unmapped(self, then: Callable[[Seen], None]) -> None:
        """Do something with the call for all items of a `jax.vmap` together, outside of it."""

        @custom_vmap
        def inside(arrays: dict[str, Any]) -> Any:
            return jnp.zeros(())

        @inside.def_vmap
        def outside(size: int, mapped: list[dict[str, bool]], arrays: dict[str, Any]) -> Any:
            joined = {name: _joined(array, mapped[0][name], size, name) for name, array in arrays.items()}
            then(replace(self, arrays=joined))
            return jnp.zeros(()), False

        inside(self.arrays)


def _anywhere(measure: Callable[[dict[str, Any]], Packed], arrays: dict[str, Any]) -> Packed:
    """Run the probes; where shardings are part of the types, leave those inside to the compiler, as optax must too."""
    meshes = [jax.typeof(array).sharding.mesh for array in arrays.values()]
    explicit = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if explicit is None:
        return measure(arrays)
    with jax.sharding.use_abstract_mesh(explicit):
        whole: Packed = jax.sharding.auto_axes(measure, out_sharding=PartitionSpec())(arrays)
        return whole


def _joined(array: Any, mapped: bool, size: int, name: str) -> Any:
    """The mapped axis, which comes first, and the batch as one."""
    axis = 1 if name in ("phi", "emit") else 0
    array = array if mapped else jnp.broadcast_to(array, (size, *array.shape))
    array = jnp.moveaxis(array, 0, axis)
    return array.reshape((*array.shape[:axis], -1, *array.shape[axis + 2 :]))


@partial(jax.jit, static_argnames=("expects", "blank", "unknown"), inline=True)
def _packed(arrays: dict[str, Any], *, expects: Expects, blank: int, unknown: int | None) -> Packed:
    def the_call() -> CTCCall:  # one for each trace: what its probes share must not leave that
        given: dict[str, Any] = {name: arrays[name] for name in IN_CALL if name in arrays}
        return ctc_call(**{expects: given.pop("scores")}, **given, blank=blank, unknown=unknown)

    call = the_call()
    contract: dict[str, Any] = {name: value for probe in BRIEF for name, value in probe(call).items()}
    if "label_paddings" in arrays:
        contract |= padding_faults(arrays["frame_paddings"], arrays["label_paddings"], arrays["targets"])
    brief, brief_layout = pack(contract, call.batch, call.scores)
    layouts: list[Layout] = []

    def looked() -> Any:
        inner, found = the_call(), {}
        if "phi" in arrays:
            found = forward_maximum(arrays["phi"], arrays["emit"], inner.input_lengths, inner.target_lengths)
        rest, layout = measure(inner, (*REST, lambda _: found), inner.scores)
        layouts.append(layout)
        return rest.astype(brief.dtype)

    shape = jax.eval_shape(looked)
    look = arrays["look"] | ~_sound(contract, call)
    rest = jax.lax.cond(look, looked, lambda: jnp.zeros(shape.shape, shape.dtype))
    return Packed(jnp.concatenate([brief, rest, look[None].astype(brief.dtype)]), brief_layout, layouts[0])


def _sound(contract: dict[str, Any], call: CTCCall) -> Any:
    """Whether nothing is conspicuous in labels, lengths and losses: `ctcguard.sound`, where the call is measured."""
    frames, labels, room = contract["input_lengths"], contract["target_lengths"], int(call.targets.shape[-1])
    longest = frames.max(initial=0)  # of no utterance, too
    losses = contract.get("losses")
    return (
        (0 <= call.blank < call.classes)
        & (contract["label_min"] >= 0)
        & (contract["label_max"] >= contract["label_min"])
        & (contract["label_max"] < call.classes)
        & (contract["blank_count"] == 0)
        & (frames >= 1).all()
        & (longest <= call.frames)
        & ((longest == call.frames) | (2 * longest > call.frames + 2 * HALF_FRAMES))
        & (labels >= 0).all()
        & ((labels.sum() == room) if call.concatenated else (labels <= room).all())
        & (frames >= labels + contract["adjacent_repeats"]).all()
        & ~reduce(or_, [(contract[name] > 0).any() for name in NONE_WANTED if name in contract], jnp.asarray(False))
        & (True if losses is None else ((losses > 0) & (losses < jnp.inf)).all())
    )


def of_optax(arguments: dict[str, Any], result: tuple[Any, ...], **facts: Any) -> Seen:
    """A call of `optax.ctc_loss_with_forward_probs`.

    Parameters
    ----------
    arguments : dict
        By the names of optax: ``logits`` (batch, time, classes), ``logit_paddings``, ``labels``, ``label_paddings``,
        ``blank_id``.
    result : tuple of array
        Losses (batch,), and the forward log-probs where the step computes them.
    **facts
        Other fields of `CTCCall`.
    """
    frame_paddings, label_paddings = (_outside(arguments[name]) for name in ("logit_paddings", "label_paddings"))
    losses, *forward = (_outside(array) for array in result)
    arrays = {
        "scores": _outside(arguments["logits"]),
        "targets": _outside(arguments["labels"]),
        "input_lengths": _lengths(frame_paddings),
        "target_lengths": _lengths(label_paddings),
        "frame_paddings": frame_paddings,
        "label_paddings": label_paddings,
        "losses": losses,
        **dict(zip(("phi", "emit"), forward, strict=False)),
    }
    return Seen(arrays, "logits", blank_of(arguments), facts)


def blank_of(arguments: dict[str, Any]) -> int:
    """The index of the blank: optax counts a negative one from the end, but cannot take the very last class so."""
    blank, classes = int(arguments["blank_id"]), int(arguments["logits"].shape[-1])
    return blank + classes if -classes <= blank < -1 else blank


def of_observed(call: dict[str, Any], **facts: Any) -> Seen:
    """A call described by the keyword arguments of `ctcguard.ctc_call`."""
    given = {name: _outside(value) if name in ARRAYS else value for name, value in call.items() if value is not None}
    normal = ctc_call(**given)
    arrays = {
        "scores": normal.scores,
        "targets": normal.targets,
        "input_lengths": normal.input_lengths,
        "target_lengths": normal.target_lengths,
    }
    arrays |= {} if normal.losses is None else {"losses": normal.losses}
    others = {name: value for name, value in given.items() if name not in (*ARRAYS, "blank", "batch_first")}
    return Seen(arrays, normal.expects, normal.blank, others | facts)


def _outside(values: Any) -> Any:
    """An array with no gradient, in the trace around that of whoever differentiates."""
    return jax.lax.stop_gradient(jnp.asarray(values))


def _lengths(paddings: Any) -> Any:
    """How many items are no padding, (batch,)."""
    return paddings.shape[1] - jnp.sum(paddings, axis=1).astype(jnp.int32)


def _stand_in(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of that shape and dtype that takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
