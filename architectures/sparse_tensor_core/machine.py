"""The GPU as a machine: a layer or a product by its sizes becomes a program."""

from __future__ import annotations

from typing import Self

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.machine import Area, Figure, Peak, Program
from sparqsim.architectures.operands import Computes
from sparqsim.architectures.sparse_tensor_core.config import (
    STORED,
    Configuration,
    Shape,
    Tiling,
)
from sparqsim.architectures.sparse_tensor_core.cores import TensorCores
from sparqsim.architectures.sparse_tensor_core.matrices import (
    computes,
    dtype_of,
    image_of,
    shape_of,
    sparsity_of,
)
from sparqsim.architectures.sparse_tensor_core.netlist import Diagram
from sparqsim.architectures.sparse_tensor_core.numbers import Product
from sparqsim.architectures.sparse_tensor_core.plan import Plan, best_tiling
from sparqsim.architectures.sparse_tensor_core.power import board_of, idle_w
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import EncodedLayer


class SparseTensorCore(Configuration, frozen=True, kw_only=True):
    __doc__ = Configuration.__doc__

    def cores(self, dtype: str = "fp16", pattern: str = "native") -> TensorCores:
        """The tensor cores in one format and pattern: ``native``, ``dense`` or N:M.

        Raises
        ------
        InputError
            If this machine does not do it.
        """
        return TensorCores(self, dtype, self.sparsity(dtype, pattern))

    def computes(self, layer: EncodedLayer) -> Computes:
        """The format of both operands, or all there are; zero points of integers."""
        return computes(self, layer)

    def lower(self, layer: EncodedLayer) -> Program:
        """Encode a layer by its pattern, multiply it, and lay its tiles out over the SMs."""
        dtype = dtype_of(self, layer)
        assert dtype is not None  # else it was refused
        sparsity, told = sparsity_of(self, layer, dtype)
        shape, cores = shape_of(layer.layer, sparsity), TensorCores(self, dtype, sparsity)
        image = image_of(layer.layer, sparsity)
        plan = Plan(cores, shape, best_tiling(cores, shape, image), image)
        product = None if layer.is_outline else Product(plan, layer)
        notes = [told] if told else []
        if image is not None:
            notes.append(
                "implicit GEMM: DRAM gives the image to L2 once, where it fits; it is unfolded on "
                "the way to shared memory"
            )
        notes.append(_leaving(layer, cores, product))
        return self._program(plan, layer.name, layer.source, layer.layer.macs, notes, product)

    def gemm(
        self,
        rows: int,
        columns: int,
        depth: int,
        batch: int = 1,
        *,
        dtype: str = "fp16",
        pattern: str = "native",
        name: str = "gemm",
        tiling: Tiling | None = None,
    ) -> Program:
        """The timing of a product of that shape; it does not depend on the values.

        Parameters
        ----------
        rows, columns, depth, batch
            Rows of the weights (M), columns of the activations (N), the reduction (K), products.
        dtype, pattern
            As for :meth:`cores`.
        name
            Of the layer in the report.
        tiling
            Cut it so and not as the library would.

        Raises
        ------
        InputError
            If a size is not a whole number from 1, or the machine does not do format or pattern.
        """
        shape, cores = Shape(rows, columns, depth, batch), self.cores(dtype, pattern)
        for field, value in shape._asdict().items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"gemm: {field} must be a whole number from 1, got {value!r}")
        plan = Plan(cores, shape, tiling or best_tiling(cores, shape))
        return self._program(plan, name, "shape alone", shape.macs, [], None)

    def _program(
        self, plan: Plan, name: str, inputs: str, macs: int, notes: list[str],
        product: Product | None,
    ) -> Program:  # fmt: skip
        cores, tiling, shape = plan.cores, plan.tiling, plan.shape
        steps = plan.tiles * tiling.steps
        notes = [_tiles_told(plan), *notes]
        if cores.kernels.legacy:
            notes.append(
                "dense integers run by kernels of the generation before, as PyTorch's library has "
                f"them: {100 * cores.kernels.issue:g} % of the peak at most (assumed)"
            )
        if plan.clock_hz < self.clock_hz:
            notes.append(
                f"the power limit holds the clock at {plan.clock_hz / 1e6:.0f} MHz "
                f"of {self.clock_hz / 1e6:.0f}"
            )
        if product is None:
            kept = -(-shape.depth // cores.sparsity.group) * cores.sparsity.kept
            most = shape.rows * shape.columns * min(kept, shape.depth) * shape.batch
            effectual = min(macs, most)
            notes.append("timing only: kept weights and activations count as effectual")
        else:
            effectual = product.effectual

        def counters(timeline: Timeline) -> dict[str, int]:
            return {
                "tiles": plan.tiles,
                "waves": plan.waves,
                "steps": steps,
                "stages": tiling.stages,
                "multiplier_slots": plan.slots,
                "launches": plan.launches,
                "weight_bits": plan.weight_bits,
            }

        def energy(timeline: Timeline) -> list[EnergyPart]:
            idle, board = idle_w(self), board_of(self)
            resting = EnergyPart(
                part="idle board",
                energy_pj=idle * timeline.seconds * 1e12,
                basis=Basis.ASSUMED,
                source=f"{self.idle_w:g} W over the run"
                + ("" if board.sms == self.sms else f", for {self.sms} of {board.sms} SMs"),
            )
            times = "" if board.peak_over_tdp == 1 else f"{board.peak_over_tdp:g} times "
            told = (
                f"a share of {board.tdp_w * board.peak_over_tdp - board.idle_w:.4g} W, {times}TDP "
                f"less idle power, at the dense peak of {board.sms} SMs at "
                f"{board.clock_hz / 1e6:g} MHz; shares by the horowitz table"
            )
            return [resting] + [
                EnergyPart(part=part, energy_pj=steps * each, basis=Basis.ASSUMED, source=told)
                for part, each in cores.step_energy_pj(tiling).items()
            ]

        diagram = Diagram(plan, name, {} if product is None else product.actions())
        return Program(
            netlist=diagram.netlist(),
            layer=name,
            inputs=inputs,
            macs=Macs(dense=macs, effectual=effectual),
            worker="mma",
            multipliers=self.sms * cores.macs_per_sm,
            account=diagram.account(),
            outputs=None if product is None else product.outputs,
            output_scale=1.0 if product is None else product.output_scale,
            verify=None if product is None else product.verify,
            counters=counters,
            energy=energy,
            executed=None if product is None else product.executed,
            notes=notes,
        )

    # ------------------------------------------------------------------ the datasheet

    def peak(self) -> Peak:
        """Dense fp16."""
        macs = self.sms * self.cores("fp16", "dense").macs_per_sm * self.clock_hz
        return Peak(macs_per_s=macs, operands="16 x 16 bits, dense")

    def bandwidth(self) -> float:
        """Of DRAM at its peak."""
        return self.dram_gbytes_per_s * 1e9

    def area(self) -> Area | None:
        """Of the whole die, where this is a preset whose area is published."""
        return presets.area(self)

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With as many SMs, or that bandwidth of DRAM."""
        fields: dict[str, float] = {}
        if macs_per_s is not None:
            fields["sms"] = max(1, round(macs_per_s * self.sms / self.peak().macs_per_s))
        if bandwidth is not None:
            fields["dram_gbytes_per_s"] = bandwidth / 1e9
        return msgspec.structs.replace(self, **fields)

    def datasheet(self) -> list[Figure]:
        """Peaks of every format, and the fields with the sources of the nearest preset."""
        figures = []
        for dtype in self.kinds:
            cores = self.cores(dtype)
            s, bits = cores.sparsity, cores.kind.bits
            peak = 2 * self.sms * cores.macs_per_sm * self.clock_hz / 1e12
            share = 100 * cores.weight_bits / bits
            figures += [
                Figure(
                    f"peak, {dtype}", f"{peak:.4g} TOP/s", Basis.DERIVED, "SMs x MACs x clock x 2"
                ),
            ]
            if s.is_dense:
                continue
            figures += [
                Figure(f"peak, {dtype} {s.name}", f"{s.m / s.n * peak:.4g} TOP/s", Basis.DERIVED,
                       "times M/N"),
                Figure(f"weights stored, {dtype} {s.name}", f"{share:.4g} % of dense bits",
                       Basis.DERIVED, "kept values and ceil(log2 M) bits of position each"),
            ]  # fmt: skip
        return [*figures, *presets.figures(self)]


def _tiles_told(plan: Plan) -> str:
    """How a product is cut, in words."""
    tiling, cores = plan.tiling, plan.cores
    return (
        f"{plan.tiles} tiles of {tiling.rows} x {tiling.columns}"
        + (f", depth split in {tiling.splits}" if tiling.splits > 1 else "")
        + f", {tiling.steps} step{'s' * (tiling.steps > 1)} of {tiling.step}, "
        f"{tiling.stages} stages, {plan.waves} wave{'s' * (plan.waves > 1)} on {cores.gpu.sms} SMs"
        f"; {cores.dtype}, {cores.sparsity.name}"
    )


def _leaving(layer: EncodedLayer, cores: TensorCores, product: Product | None) -> str:
    """How outputs leave, in words."""
    after = "bias and ReLU" if layer.relu else "bias"
    if cores.kind.integers:
        told = f"outputs are 32-bit sums with {after}; scaling them to codes is another kernel's"
    else:
        told = f"outputs are {STORED[cores.dtype]} with {after}"
    if layer.dynamic:
        told += "; dynamic ranges: finding them is another kernel's too"
    if product is not None and product.infinite:
        told += f"; {product.infinite:,} of them exceed the format and are infinite"
    return told
