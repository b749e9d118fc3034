"""The output of `mira_jax.size`: the printed table and the JSON file."""

import dataclasses
from typing import Any

import jax

from mira_jax.models import remat
from mira_jax.models.config import PRESETS
from mira_jax.models.kernels.choose import describe_kernels
from mira_jax.sizing import flops
from mira_jax.sizing.chips import GB, Topology
from mira_jax.sizing.compiled import Compiled
from mira_jax.sizing.estimate import Estimate
from mira_jax.sizing.plan import Plan
from mira_jax.sizing.roofline import Roofline, roofline
from mira_jax.sizing.search import Candidate

SHOWN = 5
"""Number of candidates shown, and of buffers shown for a program that does not fit."""


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
            "fits": self.fits,
            "estimate": {**dataclasses.asdict(self.estimate), "peak": self.estimate.memory.peak},
            "compiled": dataclasses.asdict(self.compiled) if self.compiled else None,
            "flop_convention": flops.CONVENTION,
            "flops_needed": self.needed,
            "flops_done": self.done,
            "efficiency": self.efficiency,
            "roofline": dataclasses.asdict(line),
            "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        }

    def text(self) -> str:
        return "\n".join([*self._head(), "", *self._memory(), "", *self._traffic(), "", *self._speed()])

    def _head(self) -> list[str]:
        plan, workload = self.plan, self.plan.workload
        preset = next((f" {name}" for name, sizes in PRESETS.items() if sizes == plan.model), "")
        trained = f", {_count(plan.state.params) / 1e6:,.1f} M trained" if plan.skeleton.frozen else ""
        text = workload.texts[0]
        return [
            f"{plan.recipe.name} step of Gemma3{preset}, {plan.model.parameters / 1e9:.3f} B parameters{trained}, "
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
        lines = [f"{name:<28}{left:>12}{right:>12}".rstrip() for name, left, right in rows]
        return lines + [f"  {buffer}" for buffer in (compiled.largest[:SHOWN] if compiled else [])]

    def _traffic(self) -> list[str]:
        compiled = self.compiled if self.compiled and self.compiled.hbm_bytes is not None else None
        rows = [("traffic, GB a chip and step", "estimate", "compiled" if compiled else "")]
        rows += [("to and from memory", _gb(self.estimate.hbm_bytes), _gb(compiled.hbm_bytes) if compiled else "")]
        for axes in sorted({*self.estimate.sent, *(compiled.sent if compiled else ())}):
            right = _gb(compiled.sent.get(axes, 0.0)) if compiled else ""
            rows.append((f"sent over {axes}", _gb(self.estimate.sent.get(axes, 0.0)), right))
        for kind in sorted(compiled.sent_by_kind) if compiled else ():
            rows.append((f"  of it {kind}", "", _gb(compiled.sent_by_kind[kind])))
        return [f"{name:<28}{left:>12}{right:>12}".rstrip() for name, left, right in rows]

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
        ]


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


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _gb(count: float | None) -> str:
    return "?" if count is None else f"{count / GB:,.2f}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "NO"
