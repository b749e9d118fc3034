"""The output of `mira_jax.size`: the printed tables and the JSON file."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from mira_jax.models import remat
from mira_jax.models.config import PRESETS, Gemma3Config
from mira_jax.models.kernels.choose import describe_kernels
from mira_jax.sizing import flops
from mira_jax.sizing.chips import GB, Topology
from mira_jax.sizing.compiled import Compiled
from mira_jax.sizing.estimate import Estimate
from mira_jax.sizing.inference import Inference
from mira_jax.sizing.plan import Plan
from mira_jax.sizing.roofline import Roofline, roofline
from mira_jax.sizing.search import Candidate

SHOWN = 5
"""Number of candidates shown, and of buffers shown for a program that does not fit."""
READ = 0.9
"""Share of the products that must be found in a compiled program for its schedule to be shown."""


@dataclasses.dataclass(frozen=True)
class Sizing:
    """The figures of a step on a mesh of chips."""

    plan: Plan
    topology: Topology
    mesh: dict[str, int]
    optimizer: str
    estimate: Estimate
    compiled: Compiled | None
    done: float
    """FLOPs of all matrix products in one step, over all chips."""
    efficiency: float

    @property
    def needed(self) -> float:
        """FLOPs as defined by `flops.CONVENTION`."""
        trained, frozen = _count(self.plan.state.params), _count(self.plan.skeleton.frozen)
        texts = self.plan.workload.texts * self.plan.workload.rows
        return flops.training_flops(self.plan.model, texts, trained / (trained + frozen))

    @property
    def peak(self) -> float:
        """Peak bytes of a chip's memory."""
        return self.compiled.peak if self.compiled else self.estimate.memory.peak

    @property
    def fits(self) -> bool:
        return self.compiled.fits if self.compiled else self.peak <= self.topology.chip.hbm

    @property
    def roofline(self) -> Roofline:
        """From the compiled program if available, otherwise from the estimate."""
        measured = self.compiled if self.compiled and self.compiled.hbm_bytes is not None else self.estimate
        return roofline(
            self.topology, self.mesh, done=self.done, needed=self.needed, tokens=self.plan.workload.tokens,
            hbm_bytes=measured.hbm_bytes, sent=measured.sent, efficiency=self.efficiency,
        )  # fmt: skip

    def tree(self) -> dict[str, Any]:
        """All figures as plain data. Bytes are per chip, FLOPs are over all chips."""
        workload, line = self.plan.workload, self.roofline
        return {
            "topology": self.topology.name,
            "chip": self.topology.chip.name,
            "chips": self.topology.chips,
            "hbm": self.topology.chip.hbm,
            "mesh": self.mesh,
            "recipe": self.plan.recipe.name,
            "parameters": self.plan.model.parameters,
            "trained": _count(self.plan.state.params),
            "dtype": str(self.plan.dtype),
            "remat": self.plan.remat,
            "attention": {layer_type: kernel.name for layer_type, kernel in self.plan.kernels.items()},
            "optimizer": self.optimizer,
            "rows": workload.rows,
            "parts": workload.parts,
            "row_length": workload.row_length,
            "steps_per_row": len(workload.texts),
            "tokens": workload.tokens,
            "peak": self.peak,
            "fits": self.fits,
            "estimate": {**dataclasses.asdict(self.estimate), "peak": self.estimate.memory.peak},
            "compiled": dataclasses.asdict(self.compiled) if self.compiled else None,
            "flop_convention": flops.CONVENTION,
            "flops_needed": self.needed,
            "flops_done": self.done,
            "efficiency": self.efficiency,
            "roofline": dataclasses.asdict(line),
            "versions": _versions(),
        }

    def text(self) -> str:
        return "\n".join([*self._head(), "", *self._memory(), "", *self._traffic(), "", *self._speed()])

    def _head(self) -> list[str]:
        plan, workload = self.plan, self.plan.workload
        trained = f", {_count(plan.state.params) / 1e6:,.1f} M trained" if plan.skeleton.frozen else ""
        text = workload.texts[0]
        return [
            f"{plan.recipe.name} step of {_model_text(plan.model)}{trained}, "
            f"on {self.topology.name}: {self.topology.chips} x {self.topology.chip.name}",
            "mesh " + ", ".join(f"{axis} {size}" for axis, size in self.mesh.items())
            + f"; activations {plan.dtype}, remat {remat.text(plan.remat)}, {self.optimizer}",
            describe_kernels(plan.kernels),
            f"{workload.rows} rows of {workload.row_length:,} tokens"
            + (f" in {workload.parts} parts" if workload.parts > 1 else "")
            + f", each {len(workload.texts)} steps of {text.tokens:,} tokens: {workload.tokens:,} tokens a step",
        ]  # fmt: skip

    def _memory(self) -> list[str]:
        memory, compiled, hbm = self.estimate.memory, self.compiled, self.topology.chip.hbm
        rows = [("memory, GB a chip", "estimate", "compiled" if compiled else "")]
        rows += [(name, _gb(getattr(memory, name)), "") for name in ("parameters", "optimizer", "gradients", "activations", "working")]
        if compiled:
            rows += [("arguments (state, batch)", _gb(memory.parameters + memory.optimizer), _gb(compiled.arguments))]
            rows += [("temporaries", _gb(memory.gradients + memory.activations + memory.working), _gb(compiled.temporaries))]
        rows += [("peak", _gb(memory.peak), _gb(compiled.peak) if compiled else "")]
        rows += [(f"of {hbm / GB:.1f}", f"{memory.peak / hbm:.0%}", f"{compiled.peak / hbm:.0%}" if compiled else "")]
        rows += [("fits", _yes(memory.peak <= hbm), _yes(compiled.fits) if compiled else "")]
        return _columns(rows) + [f"  {buffer}" for buffer in (compiled.largest[:SHOWN] if compiled else [])]

    def _traffic(self) -> list[str]:
        compiled = self.compiled if self.compiled and self.compiled.hbm_bytes is not None else None
        rows = [("traffic, GB a chip and step", "estimate", "compiled" if compiled else "")]
        rows += [("to and from memory", _gb(self.estimate.hbm_bytes), _gb(compiled.hbm_bytes) if compiled else "")]
        for axes in sorted({*self.estimate.sent, *(compiled.sent if compiled else ())}):
            right = _gb(compiled.sent.get(axes, 0.0)) if compiled else ""
            rows.append((f"sent over {axes}", _gb(self.estimate.sent.get(axes, 0.0)), right))
        for kind in sorted(compiled.sent_by_kind) if compiled else ():
            rows.append((f"  of it {kind}", "", _gb(compiled.sent_by_kind[kind])))
        return _columns(rows)

    def _speed(self) -> list[str]:
        line, tokens = self.roofline, self.plan.workload.tokens
        source = "compiled" if self.compiled and self.compiled.hbm_bytes is not None else "estimate"
        return [
            f"FLOPs needed {self.needed / 1e15:,.2f} P, {self.needed / tokens / 1e9:.1f} G a token ({flops.CONVENTION})",
            f"FLOPs done   {self.done / 1e15:,.2f} P, {self.done / self.needed:.2f} times as many, with masked blocks and remat",
            f"roofline, s a step ({source}; products at {self.efficiency:.0%} of peak): "
            f"compute {line.compute:.3g}, memory {line.memory:.3g}, links {line.links:.3g}",
            f"at best {line.seconds:.3g} s a step, bound by {line.bound}: {line.tokens_per_second:,.0f} tokens/s, "
            f"{line.tokens_per_second / self.topology.chips:,.0f} a chip, MFU {line.mfu:.1%}",
            *self._schedule(),
        ]

    def _schedule(self) -> list[str]:
        order, line = (self.compiled.schedule if self.compiled else None), self.roofline
        if not self.compiled or not order:
            apart = max(line.compute, line.memory) + line.links
            return [f"if no collective overlaps {apart:.3g} s a step, MFU {self._mfu(apart):.1%}"] if line.links else []
        if order.flops * self.topology.chips < READ * self.done:
            return ["in the compiled order ? s a step: not all of its products can be read"]
        exposed = [f"{_gb(count)} of {_gb(self.compiled.sent[axes])} GB over {axes}" for axes, count in sorted(order.sent.items())]
        waits = f", of it {sum(order.waits.values()):.3g} s for exposed collectives ({', '.join(exposed)})" if exposed else ""
        return [f"in the compiled order at least {order.seconds:.3g} s a step, MFU {self._mfu(order.seconds):.1%}{waits}"]

    def _mfu(self, seconds: float) -> float:
        return self.needed / (seconds * self.topology.chip.flops * self.topology.chips)


@dataclasses.dataclass(frozen=True)
class InferenceSizing:
    """The figures of `mira score` or `mira serve` on one chip of a topology."""

    plan: Inference
    topology: Topology
    compiled: tuple[Compiled, ...]
    """Of each program, or () if only estimated."""
    efficiency: float

    @property
    def estimated_peak(self) -> float:
        return self._peak([program.working for program in self.plan.programs])

    @property
    def peak(self) -> float:
        """Peak bytes of the chip's memory."""
        return self._peak([_temporaries(program) for program in self.compiled]) if self.compiled else self.estimated_peak

    @property
    def fits(self) -> bool:
        return all(program.fits for program in self.compiled) and self.peak <= self.topology.chip.hbm

    def roofline(self, number: int) -> Roofline:
        """Of a program, from its compiled form if available, otherwise from the estimate."""
        program, traffic = self.plan.programs[number], self._traffic(number)
        chip = dataclasses.replace(self.topology, shape=(1,) * len(self.topology.shape))
        return roofline(
            chip, {}, done=program.done, needed=program.needed, tokens=program.tokens, hbm_bytes=traffic, sent={},
            efficiency=self.efficiency,
        )  # fmt: skip

    def tree(self) -> dict[str, Any]:
        """All figures as plain data. Bytes and FLOPs are those of one chip."""
        programs = [
            {
                "name": program.name,
                "tokens": program.tokens,
                "estimate": {"temporaries": program.working, "hbm_bytes": program.hbm_bytes},
                "compiled": dataclasses.asdict(self.compiled[number]) if self.compiled else None,
                "flops_needed": program.needed,
                "flops_done": program.done,
                "roofline": dataclasses.asdict(self.roofline(number)),
            }
            for number, program in enumerate(self.plan.programs)
        ]
        return {
            "what": self.plan.what,
            "topology": self.topology.name,
            "chip": self.topology.chip.name,
            "hbm": self.topology.chip.hbm,
            "parameters": self.plan.model.parameters,
            "held": self.plan.held,
            "growth": self.plan.growth,
            "programs": programs,
            "peak": self.peak,
            "fits": self.fits,
            "attention": {layer_type: kernel.name for layer_type, kernel in self.plan.kernels.items()},
            "flop_convention": flops.CONVENTION,
            "efficiency": self.efficiency,
            "versions": _versions(),
        }

    def text(self) -> str:
        plan, chip = self.plan, self.topology.chip
        head = f"{plan.what} ({plan.kind}) with {_model_text(plan.model)}, on one chip of {self.topology.name}: {chip.name}"
        return "\n".join([head, plan.text, describe_kernels(plan.kernels), "", *self._memory(), "", *self._speed()])

    def _memory(self) -> list[str]:
        plan, hbm, compiled = self.plan, self.topology.chip.hbm, bool(self.compiled)
        rows = [("memory, GB", "estimate", "compiled" if compiled else "")]
        rows += [(name, _gb(count), "") for name, count in plan.held.items()]
        if plan.growth:
            rows += [("the cache grows", _gb(plan.growth), "")]
        for number, program in enumerate(plan.programs):
            rows += [(f"{program.name}, temporaries", _gb(program.working), _gb(_temporaries(self.compiled[number])) if compiled else "")]
        rows += [("peak", _gb(self.estimated_peak), _gb(self.peak) if compiled else "")]
        rows += [(f"of {hbm / GB:.1f}", f"{self.estimated_peak / hbm:.0%}", f"{self.peak / hbm:.0%}" if compiled else "")]
        rows += [("fits", _yes(self.estimated_peak <= hbm), _yes(self.fits) if compiled else "")]
        return _columns(rows)

    def _speed(self) -> list[str]:
        source = "compiled" if self.compiled else "estimate"
        lines = [f"at best ({source}; products at {self.efficiency:.0%} of peak)"]
        for number, program in enumerate(self.plan.programs):
            line = self.roofline(number)
            lines.append(
                f"  {program.name}, {program.text}: {line.seconds:.3g} s, {line.tokens_per_second:,.0f} tokens/s, bound by {line.bound} "
                f"(compute {line.compute:.3g} s, memory {line.memory:.3g} s)"
            )
        return lines

    def _peak(self, temporaries: Sequence[float]) -> float:
        return sum(self.plan.held.values()) + max(self.plan.growth, *temporaries)

    def _traffic(self, number: int) -> float:
        measured = self.compiled[number].hbm_bytes if self.compiled else None
        return self.plan.programs[number].hbm_bytes if measured is None else measured


def _temporaries(compiled: Compiled) -> float:
    """Infinite if the program is too large for the chip."""
    return math.inf if compiled.temporaries is None else compiled.temporaries


def others(found: list[Candidate]) -> str:
    """A table of settings that fit."""
    if not found:
        return "no mesh of these chips holds it, according to the estimate: use more chips, bfloat16 state or lora"
    lines = ["settings that fit, by the estimate, the fastest first"]
    for candidate in found[:SHOWN]:
        line = candidate.roofline
        lines.append(f"  {_gb(candidate.estimate.memory.peak):>7} GB {line.seconds:8.3g} s, MFU {line.mfu:5.1%}  {candidate.settings()}")
    return "\n".join(lines)


def optimizer_text(config: Any) -> str:
    """Describes an `OptimizerConfig` and the dtype of the parameters in words."""
    return f"{config.name} with {config.state_dtype} moments" + (" and float32 master weights" if config.master else "")


def _model_text(model: Gemma3Config) -> str:
    preset = next((f" {name}" for name, sizes in PRESETS.items() if sizes == dataclasses.replace(model, scan_layers=sizes.scan_layers)), "")
    return f"Gemma3{preset}, {model.parameters / 1e9:.3f} B parameters"


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    return [f"{name:<28}{left:>12}{right:>12}".rstrip() for name, left, right in rows]


def _versions() -> dict[str, str]:
    return {"jax": jax.__version__, "jaxlib": jax.lib.__version__}


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _gb(count: float | None) -> str:
    return "?" if count is None else f"{count / GB:,.2f}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "NO"
