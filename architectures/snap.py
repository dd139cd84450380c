"""SNAP: both operands compressed, matched by channel index (Zhang et al., VLSI 2019, JSSC 2021).

Weights and activations are stored as *bundles*: the non-zeros of some neighbouring channels at one
place, each with its channel index. An associative index matcher (AIM), an N x N array of
comparators with a priority encoder a row, compares a weight bundle with an activation bundle all to
all; a sequence decoder walks the matches and feeds a PE up to three pairs a cycle. Everything in a
bundle pair adds into one output (channel-first), so every match is useful - but their number is
chance, PEs that share an AIM wait for it, and the PEs fall out of step.

    buffers => aim -> decoder -> pe -> core_reduce -> write_back

A *step* of a PE is one activation bundle against the weight bundles of a block of output channels.
Partial sums (psums) shrink in two levels: within a PE (an adder tree that reduces its three
products, or splits them where a cycle straddles two outputs), then over the three PEs of a core
that work on the same output: PEs on a diagonal take the rows of a kernel (CONV), PEs of a row take
slices of the channels (1 x 1 CONV, FC). What is left is added to the output buffer, whose banks
take a psum a cycle; a PE row that finds its bank taken waits.

Little of the micro-architecture is published; every number below says what it is. Assumed where
nothing else is said: diagonals wrap around the array, so that each holds three PEs; cores share the
activations and split the output channels; a PE has its own decoder and a psum register (one decoder
for P PEs would cap utilisation at 1/P); a step moves through the blocks as one token, holds its AIM
and its bank for all its cycles at a stretch, and costs a cycle of each even if it is empty. Left
out: DRAM, filling the buffers (they deliver a step a cycle), compressing the outputs.

Sources: Zhang et al., "SNAP: A 1.67-21.55 TOPS/W Sparse Neural Acceleration Processor for
Unstructured Sparse Deep Neural Network Inference in 16nm CMOS", VLSI 2019; JSSC 2021 (abstracts).
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis, Entry, get_table
from sparqsim.simulator.mac import snap as mac
from sparqsim.simulator.mac.eie import requantize, wrap
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import EnergyPart, Macs, Memory, Verification, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encodings.channel_bundles import ChannelBundles
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d, Layer, Linear
from sparqsim.workloads.tensors import LayerTensors

VALUE_BITS = 16  # published, JSSC abstract: 16-bit fixed point
NODE_NM = 16.0  # published, JSSC abstract
PAPER_CLOCK_HZ = 480e6  # published, JSSC abstract: at 0.80 V, for ResNet-50
SRAM_KB = 280.6  # assumed: recalled from the paper, unchecked
MULTIPLY_16_PJ_OVER_32 = 1 / 4  # assumed: a multiplier grows with the square of its width
SNAP_TABLE = "horowitz"  # the one shipped table that prices a multiplier and an adder apart


class SNAP(Machine, frozen=True, kw_only=True):
    """Configuration of SNAP; the defaults are the chip as far as it is known.

    Attributes
    ----------
    cores
        Cores; they split the output channels.
    rows
        Rows of PEs in a core; each works on an output of its own.
    columns
        Columns of PEs in a core; the PEs that the second reduction level adds up.
    multipliers
        Multipliers of a PE.
    comparators
        N: comparators on a side of an AIM.
    bundle_channels
        Channels a bundle covers, 1 to 256.
    pes_per_aim
        PEs that share an AIM.
    kernels_per_step
        Most output channels a PE works through with one activation bundle.
    split_tree
        Whether a cycle may hold products of two outputs; if not, it holds those of one pair.
    pe_reduction
        First level: add up the products of a bundle pair in the PE.
    core_reduction
        Second level: add up the PEs of a diagonal or row.
    banks
        Banks of a core's output buffer.
    step_slots
        Steps that can wait before a PE's AIM.
    match_slots
        Steps whose matches a PE's decoder holds.
    accumulator_bits
        Width of the sums in the output buffer, which wrap around.
    clock_hz
        Clock frequency.
    """

    name: ClassVar[str] = "snap"
    title: ClassVar[str] = "SNAP (VLSI 2019): weights and activations matched by channel index"

    cores: int = 4  # assumed: recalled from the paper, unchecked
    rows: int = 7  # assumed: recalled from the paper, unchecked
    columns: int = 3  # assumed: recalled from the paper, unchecked
    multipliers: int = 3  # assumed: recalled from the paper, unchecked
    comparators: int = 32  # assumed: 16 is as likely
    bundle_channels: int = 32  # assumed: a dense bundle fills the comparators
    pes_per_aim: int = 3  # assumed: the PEs of a row share one
    kernels_per_step: int = 16  # assumed: not published
    split_tree: bool = True  # published in outline: the adder tree is configurable
    pe_reduction: bool = True  # published: first level
    core_reduction: bool = True  # published: second level
    banks: int = 8  # assumed: the power of two above the rows
    step_slots: int = 4  # assumed: not published
    match_slots: int = 2  # assumed: double buffering
    accumulator_bits: int = 48  # assumed: 32-bit products and room for 2^16 of them
    clock_hz: float = PAPER_CLOCK_HZ

    def __post_init__(self) -> None:
        bounds = {
            "cores": (1, 64, "cores"),
            "rows": (1, 64, "rows of PEs"),
            "columns": (1, 64, "columns of PEs"),
            "multipliers": (1, 64, "multipliers of a PE"),
            "comparators": (1, 256, "comparators on a side"),
            "bundle_channels": (1, 256, "channels of a bundle; an index has 8 bits"),
            "pes_per_aim": (1, self.rows * self.columns, "PEs of a core that share an AIM"),
            "kernels_per_step": (1, 1 << 16, "output channels"),
            "banks": (1, 1024, "banks of a core"),
            "step_slots": (1, 1 << 20, "steps"),
            "match_slots": (1, 1 << 20, "steps"),
            "accumulator_bits": (16, 63, "bits"),
        }
        for name, (low, high, what) in bounds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"snap.{name} must be {low} to {high} ({what}), got {value!r}")
        if not (isinstance(self.clock_hz, int | float) and 1e3 <= self.clock_hz <= 1e12):
            raise InputError(f"snap.clock_hz must be 1 kHz to 1 THz, got {self.clock_hz!r}")

    @property
    def pes(self) -> int:
        """PEs of all cores."""
        return self.cores * self.rows * self.columns

    @property
    def aims_per_core(self) -> int:
        """AIMs of a core."""
        return -(-self.rows * self.columns // self.pes_per_aim)

    # ------------------------------------------------------------------ lowering

    def lower(self, tensors: LayerTensors) -> Program:
        """Compress both operands, match and multiply them, and turn the work into a netlist.

        Weights, activations and outputs are 16-bit fixed point, each with as many fraction bits as
        its largest value leaves; what rounds to zero is dropped. A bias is where the sums begin.

        Raises
        ------
        InputError
            If the layer is neither a convolution nor fully connected.
        """
        work = _Work(self, tensors)
        largest = int(np.abs(work.accumulators).max(initial=0))
        shift = max(0, largest.bit_length() - (VALUE_BITS - 1))
        outputs = requantize(work.accumulators, shift, VALUE_BITS, tensors.relu)
        if isinstance(tensors.layer, Linear):
            outputs = outputs[:, :, 0, 0]

        def verify() -> Verification:
            wrapped = wrap(work.reference(), self.accumulator_bits)
            expected = requantize(wrapped, shift, VALUE_BITS, tensors.relu).reshape(outputs.shape)
            differ = int((expected != outputs).sum())
            return Verification(
                status="mismatch" if differ else "exact",
                outputs=outputs.size,
                mismatches=differ,
                against="dense integer convolution, tap by tap (float64 BLAS, exact to 2^53)",
            )

        layer = tensors.layer
        notes = [f"{'diagonal' if work.diagonal else 'row'} mode; DRAM is left out"]
        overflowed = int((work.accumulators != work.unwrapped).sum())
        if overflowed:
            notes.append(
                f"{overflowed} of {outputs.size} accumulators overflowed their "
                f"{self.accumulator_bits} bits and wrapped around"
            )
        counted = work.counters()
        return Program(
            netlist=self._netlist(work, layer.name),
            layer=layer.name,
            inputs=tensors.source,
            macs=Macs(dense=layer.macs, effectual=counted["products"]),
            worker="pe",
            multipliers=self.pes * self.multipliers,
            outputs=outputs,
            verify=verify,
            counters=lambda timeline: {
                **counted,
                "aim_wait_cycles": int(timeline.lane_times("aim").waiting.sum()),
                "bank_wait_cycles": int(timeline.lane_times("write_back").waiting.sum()),
            },
            memory=lambda timeline: _memory(work, counted, timeline),
            energy=lambda timeline: _energy(self, counted),
            executed=work.executed,
            notes=notes,
        )

    # ------------------------------------------------------------------ the block diagram

    def _netlist(self, work: _Work, name: str) -> Netlist:
        """The blocks of the diagram, a firing a step and lane."""
        steps, done = work.schedule.steps, work.done
        row_lanes = self.cores * self.rows
        run = work.actions()
        psums = work.psums

        def bank(actor: str, lanes: int, busy: Any, part: str, **more: Any) -> Actor:
            return Actor(
                name=actor,
                lanes=lanes,
                firings=steps,
                busy=busy,
                execute=run[actor],
                part=part,
                **more,
            )

        channels = [
            Channel(
                name="steps",
                source="buffers",
                target="aim",
                capacity=self.step_slots,
                pattern=Pattern.BROADCAST,
            ),
            Channel(name="matches", source="aim", target="decoder", capacity=self.match_slots),
            # Pairs stream from the decoder into the multipliers; a register lies between.
            Channel(name="pairs", source="decoder", target="pe", capacity=2),
        ]
        actors = [
            bank("buffers", 1, 1, "Activation and weight buffers"),
            bank(
                "aim",
                self.pes,
                np.maximum(done.passes, 1),
                "AIM: comparators, priority encoders",
                resource="aims",
                request=np.broadcast_to(work.aim_of, (steps, self.pes))[:, :, None],
            ),
            bank("decoder", self.pes, done.cycles, "AIM: sequence decoder", latency=1),
            bank("pe", self.pes, done.cycles, "PE: multipliers and adder tree"),
        ]
        source = "pe"
        if self.core_reduction:
            actors.append(bank("core_reduce", row_lanes, psums, f"Core reducer, {work.mode}"))
            channels += [
                Channel(
                    name=f"pe_psums_{column}",
                    source="pe",
                    target="core_reduce",
                    capacity=2,
                    pattern=Pattern.SHIFT,
                    offset=-column * row_lanes,
                )
                for column in range(self.columns)
            ]
            source = "core_reduce"
        actors.append(
            bank(
                "write_back",
                psums.shape[1],
                np.maximum(psums, 1),
                "Output buffer",
                resource="output_banks",
                request=work.output_bank()[:, :, None],
            )
        )
        channels.append(Channel(name="psums", source=source, target="write_back", capacity=2))
        resources = [
            Resource(name="aims", servers=self.cores * self.aims_per_core, banked=True),
            Resource(name="output_banks", servers=self.cores * self.banks, banked=True),
        ]
        return Netlist(actors, channels, resources, clock_hz=self.clock_hz, name=f"SNAP {name}")

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        lanes = self.pes * self.multipliers
        recalled, unknown = "recalled from the paper, unchecked", "not published"
        return [
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", published, "480 MHz at 0.80 V"),
            Figure("precision", f"{VALUE_BITS} bits", published, "JSSC abstract"),
            Figure("cores", f"{self.cores}", assumed, recalled),
            Figure("PEs of a core", f"{self.rows} x {self.columns}", assumed, recalled),
            Figure("multipliers of a PE", f"{self.multipliers}", assumed, recalled),
            Figure("multipliers", f"{lanes}", derived, "cores x PEs x multipliers"),
            Figure("peak", f"{lanes * self.clock_hz / 1e9:g} GMAC/s", derived, "x clock"),
            Figure("AIM", f"{self.comparators} x {self.comparators}", assumed, "16 is as likely"),
            Figure("channels of a bundle", f"{self.bundle_channels}", assumed, unknown),
            Figure("PEs an AIM", f"{self.pes_per_aim}", assumed, unknown),
            Figure("output channels a step", f"{self.kernels_per_step}", assumed, unknown),
            Figure("output banks a core", f"{self.banks}", assumed, unknown),
            Figure("step, match slots", f"{self.step_slots}, {self.match_slots}", assumed, unknown),
            Figure("accumulator", f"{self.accumulator_bits} bits", assumed, unknown),
            Figure("SRAM", f"{SRAM_KB} kB", assumed, recalled),
        ]


# ---------------------------------------------------------------------- mapping


def as_convolution(layer: Layer) -> Conv2d:
    """The layer as a convolution: a fully connected one is on images of one pixel.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(layer, Conv2d):
        return layer
    if isinstance(layer, Linear):
        return Conv2d(
            name=layer.name,
            in_channels=layer.in_features,
            out_channels=layer.out_features,
            input=(1, 1),
            kernel=(1, 1),
            batch=layer.rows,
        )
    raise InputError(
        f"SNAP runs convolutions and fully connected layers; {layer.name!r} is a "
        f"{type(layer).__name__}"
    )


def schedule(machine: SNAP, layer: Conv2d) -> tuple[mac.Schedule, int]:
    """Who works where, and how many blocks of output channels a core works on at once.

    A kernel of several rows runs in diagonal mode: a PE row takes an output row (image rows are
    neighbours), a column a kernel row. Otherwise it is row mode: a PE row takes an output pixel, a
    column a slice of the taps and channels. Where there are fewer outputs than PE rows, the rows
    are shared out to several blocks of output channels.
    """
    out_height, out_width = layer.output
    kernel_height, kernel_width = layer.kernel
    bundles = -(-layer.in_channels // layer.groups // machine.bundle_channels)
    if kernel_height > 1:
        at_once = min(machine.rows, out_height)
        down = _dealt(np.arange(out_height), at_once)  # [tiles, rows]
        image, tile, x, row = np.indices((layer.batch, len(down), out_width, at_once))
        positions = _triples(image, down[tile, row], x, idle=down[tile, row] < 0)
        across = _dealt(np.arange(kernel_height), machine.columns)
        turn, s, b, column = np.indices((len(across), kernel_width, bundles, machine.columns))
        items = _triples(across[turn, column], s, b, idle=across[turn, column] < 0)
    else:
        pixels = np.arange(layer.batch * out_height * out_width)
        at_once = min(machine.rows, len(pixels))
        pixel = _dealt(pixels, at_once)
        image, place = np.divmod(pixel, out_height * out_width)
        positions = _triples(image, *np.divmod(place, out_width), idle=pixel < 0)
        tap = _dealt(np.arange(kernel_width * bundles), machine.columns)
        items = _triples(np.zeros_like(tap), *np.divmod(tap, bundles), idle=tap < 0)
    slots_per_core = machine.rows // at_once
    blocks = _blocks(machine, layer, machine.cores * slots_per_core)
    return mac.Schedule(blocks, positions, items), slots_per_core


def _dealt(numbers: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Numbers in rows of ``width``, the last row filled up with -1."""
    filled = np.full(-(-len(numbers) // width) * width, -1, np.int64)
    filled[: len(numbers)] = numbers
    return filled.reshape(-1, width)


def _triples(*parts: NDArray[np.int64], idle: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Three numbers for each place ``[..., width]`` as ``[turns, width, 3]``, -1 where idle."""
    joined = np.where(idle[..., None], -1, np.stack(parts, axis=-1))
    return np.ascontiguousarray(joined.reshape(-1, idle.shape[-1], 3))


def _blocks(machine: SNAP, layer: Conv2d, slots: int) -> NDArray[np.int64]:
    """Output channels in blocks, as even as they come, dealt to the slots in turn."""
    of_group = layer.out_channels // layer.groups
    rounds = -(-layer.out_channels // (slots * machine.kernels_per_step))
    size = min(-(-layer.out_channels // (slots * rounds)), of_group)
    count = -(-of_group // size)
    bounds = np.arange(count + 1) * of_group // count
    dealt = [
        (group, group * of_group + low, group * of_group + high)
        for group in range(layer.groups)
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    dealt += [(0, 0, 0)] * (-len(dealt) % slots)
    return np.array(dealt, np.int64).reshape(-1, slots, 3)


def _fixed(values: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Values in 16-bit fixed point, and its fraction bits."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0:
        return np.zeros(values.shape, np.int32), 0
    fraction = VALUE_BITS - 1 - int(np.ceil(np.log2(largest)))
    if np.rint(largest * 2.0**fraction) >= 1 << (VALUE_BITS - 1):
        fraction -= 1
    return np.rint(values.astype(np.float64) * 2.0**fraction).astype(np.int32), fraction


def _bundles(dense: NDArray[np.int32], length: int, axis: int) -> tuple[mac.Bundles, int]:
    """A tensor in bundles along an axis, and the bits it takes."""
    made = ChannelBundles.encode(dense, length, axis, value_bits=VALUE_BITS)
    return mac.Bundles(made.pointers, made.channels, made.values), made.bits


class _Work:
    """A layer encoded, matched and multiplied: the pass that computes is the pass that counts."""

    def __init__(self, machine: SNAP, tensors: LayerTensors) -> None:
        self.machine = machine
        self.layer = layer = as_convolution(tensors.layer)
        self.diagonal = layer.kernel[0] > 1
        self.schedule, self.slots_per_core = schedule(machine, layer)
        if isinstance(tensors.weight, CSC):
            values, weight_fraction = _fixed(tensors.weight.values)
            fixed_weight = tensors.weight.with_values(values).to_dense()
        else:
            fixed_weight, weight_fraction = _fixed(tensors.weight)
        fixed_input, input_fraction = _fixed(tensors.activation)
        of_group = layer.in_channels // layer.groups
        self.weight = fixed_weight.reshape(layer.weight_shape)
        self.input = fixed_input.reshape(layer.batch, layer.groups, of_group, *layer.input)
        length = machine.bundle_channels
        self.weights, self.weight_bits = _bundles(self.weight, length, 1)
        self.activations, self.activation_bits = _bundles(self.input, length, 2)
        self.geometry = mac.Geometry(
            groups=layer.groups,
            bundles=-(-of_group // length),
            height=layer.input[0],
            width=layer.input[1],
            kernel_height=layer.kernel[0],
            kernel_width=layer.kernel[1],
            stride_y=layer.stride[0],
            stride_x=layer.stride[1],
            pad_y=layer.padding[0],
            pad_x=layer.padding[1],
            dilation_y=layer.dilation[0],
            dilation_x=layer.dilation[1],
        )
        self.bias = np.zeros(layer.out_channels, np.int64)
        if tensors.bias is not None:
            scale = 2.0 ** (weight_fraction + input_fraction)
            exact = np.rint(tensors.bias.astype(np.float64) * scale)
            limit = 2.0 ** (machine.accumulator_bits - 1) - 1
            self.bias = np.clip(exact, -limit, limit).astype(np.int64)
        outputs = (layer.batch, layer.out_channels, *layer.output)
        row_lanes = machine.cores * machine.rows
        self.done = mac.Work.blank(outputs, self.schedule.steps, machine.columns, row_lanes)
        self.done.sums[:] = self.bias[:, None, None]
        front = mac.FrontEnd(
            machine.comparators,
            machine.multipliers,
            machine.split_tree,
            machine.rows,
            self.slots_per_core,
        )
        self.pairs, self.fetched = mac.match(
            self.activations,
            self.weights,
            length,
            self.geometry,
            self.schedule,
            front,
            self.done,
        )
        self.unwrapped = self.done.sums
        self.accumulators = wrap(self.unwrapped, machine.accumulator_bits)
        self.executed_sums = np.zeros(outputs, np.int64)
        self.executed_psums = np.zeros_like(self.psums)

    @property
    def mode(self) -> str:
        """How the PEs of a core are joined."""
        return "diagonal mode" if self.diagonal else "row mode"

    @property
    def psums(self) -> NDArray[np.int32]:
        """Psums written to the output buffer, by step and lane of what writes them."""
        machine, done = self.machine, self.done
        if machine.core_reduction:
            return done.reduced if machine.pe_reduction else done.aligned
        return done.pe_psums if machine.pe_reduction else done.products

    def counters(self) -> dict[str, int]:
        """What happened, counted in the pass that computed."""
        done, tiles = self.done, len(self.schedule.positions)
        return {
            "steps": self.schedule.steps,
            "bundle_pairs": int(self.pairs),
            "aim_passes": int(done.passes.sum()),
            "products": int(done.products.sum()),
            "pe_cycles": int(done.cycles.sum()),
            "activations_fetched": int(self.fetched),
            # A weight is in one block and one item, and read once a tile for all PE rows.
            "weights_fetched": len(self.weights.values) * tiles,
            "psums_written": int(self.psums.sum()),
            "psums_without_reduction": int(done.products.sum()),
            "psums_with_pe_reduction": int(done.pe_psums.sum()),
            "psums_with_core_reduction": int(done.aligned.sum()),
            "psums_with_both": int(done.reduced.sum()),
        }

    def output_bank(self) -> NDArray[np.int64]:
        """The output bank each step of each writing lane goes to ``[steps, lanes]``.

        The bank follows from an output's address, and is chosen so that the rows of a core, which
        work at the same time, go to different banks: image rows are skewed by one in diagonal mode,
        pixels are laid out in turn in row mode, and blocks of output channels lie a tile apart.
        """
        machine, plan = self.machine, self.schedule
        rounds, slots = plan.blocks.shape[:2]
        tiles, at_once = plan.positions.shape[:2]
        y, x = plan.positions[:, :, 1], plan.positions[:, :, 2]
        where = y + x if self.diagonal else y * self.layer.output[1] + x
        slot = np.arange(slots).reshape(machine.cores, self.slots_per_core)
        block = (np.arange(rounds)[:, None, None] * slots + slot) * at_once
        place = np.empty((rounds, tiles, machine.cores, machine.rows), np.int64)
        place[:] = np.arange(machine.rows)  # of rows that are idle
        used = self.slots_per_core * at_once
        place[..., :used] = (block[:, None, :, :, None] + where[None, :, None, None, :]).reshape(
            rounds, tiles, machine.cores, used
        )
        bank = place % machine.banks + np.arange(machine.cores)[:, None] * machine.banks
        rows = np.repeat(bank.reshape(rounds * tiles, -1), len(plan.items), axis=0)
        return rows if machine.core_reduction else np.tile(rows, machine.columns)

    @property
    def aim_of(self) -> NDArray[np.int64]:
        """The AIM of each PE lane: PEs that lie side by side in their core share one."""
        machine = self.machine
        column, core, row = np.indices((machine.columns, machine.cores, machine.rows))
        if self.diagonal:
            row = (row + column) % machine.rows  # lanes go by output, PEs lie on its diagonal
        own = (row * machine.columns + column) // machine.pes_per_aim
        return (core * machine.aims_per_core + own).ravel()

    def reference(self) -> NDArray[np.int64]:
        """Exact sums by dense products, one for every kernel tap, from the dense tensors alone."""
        layer = self.layer
        top, left, bottom, right = layer.padding
        padded = np.pad(self.input, ((0, 0),) * 3 + ((top, bottom), (left, right)))
        height, width = layer.output
        sums = np.zeros(
            (layer.batch, layer.groups, layer.out_channels // layer.groups, height * width)
        )
        for r in range(layer.kernel[0]):
            for s in range(layer.kernel[1]):
                y, x = r * layer.dilation[0], s * layer.dilation[1]
                seen = padded[
                    ...,
                    y : y + (height - 1) * layer.stride[0] + 1 : layer.stride[0],
                    x : x + (width - 1) * layer.stride[1] + 1 : layer.stride[1],
                ].astype(np.float64)
                tap = self.weight[:, :, r, s].astype(np.float64)
                grouped = tap.reshape(layer.groups, -1, tap.shape[1])
                sums += grouped @ seen.reshape(*seen.shape[:3], -1)
        return sums.reshape(self.unwrapped.shape).astype(np.int64) + self.bias[:, None, None]

    # ------------------------------------------------------------------ one firing at a time

    def actions(self) -> dict[str, Any]:
        """What each block of the diagram does with a step, for ``verify="execute"``."""
        machine, plan = self.machine, self.schedule
        tiles, at_once = plan.positions.shape[:2]
        columns, items = machine.columns, len(plan.items)
        row_lanes = machine.cores * machine.rows
        Got = dict[str, list[Any]]

        def fetch(lane: int, firing: int, got: Got) -> Got:
            if firing == 0:
                self.executed_sums[:] = self.bias[:, None, None]
                self.executed_psums[:] = 0
            rest, item = divmod(firing, items)
            turn, tile = divmod(rest, tiles)
            return {"steps": [(plan.blocks[turn], plan.positions[tile], plan.items[item])]}

        def compare(lane: int, firing: int, got: Got) -> Got:
            blocks, positions, item = got["steps"][0]
            column, place = divmod(lane, row_lanes)
            core, row = divmod(place, machine.rows)
            within, position = divmod(row, at_once)
            if within >= self.slots_per_core or positions[position][0] < 0:
                return {"matches": [(None, [])]}
            where, tap = positions[position], item[column]
            group, first, end = blocks[core * self.slots_per_core + within]
            one = mac.activation_bundle(self.activations, self.geometry, group, where, tap)
            matches = []
            for channel in range(first, end):
                other = mac.weight_bundle(self.weights, self.geometry, channel, tap)
                _, here, there = np.intersect1d(one[0], other[0], True, return_indices=True)
                matches.append((channel, one[1][here], other[1][there]))
            return {"matches": [(where, matches)]}

        def decode(lane: int, firing: int, got: Got) -> Got:
            where, matches = got["matches"][0]
            pairs = [
                (channel, int(a), int(w))
                for channel, some, others in matches
                for a, w in zip(some, others, strict=True)
            ]
            return {"pairs": [(where, pairs)]}

        def multiply(lane: int, firing: int, got: Got) -> Got:
            where, pairs = got["pairs"][0]
            psums: dict[int, list[int]] = {}
            for channel, a, w in pairs:
                psums.setdefault(channel, []).append(a * w)
            if machine.pe_reduction:
                psums = {channel: [sum(products)] for channel, products in psums.items()}
            to = f"pe_psums_{lane // row_lanes}" if machine.core_reduction else "psums"
            return {to: [(where, psums)]}

        def reduce(lane: int, firing: int, got: Got) -> Got:
            tokens = [got[f"pe_psums_{column}"][0] for column in range(columns)]
            where = next((place for place, _ in tokens if place is not None), None)
            joined: dict[int, list[int]] = {}
            for channel in {channel for _, psums in tokens for channel in psums}:
                lists = [psums.get(channel, []) for _, psums in tokens]
                joined[channel] = [sum(aligned) for aligned in zip_longest(*lists, fillvalue=0)]
            return {"psums": [(where, joined)]}

        def write(lane: int, firing: int, got: Got) -> Got:
            where, psums = got["psums"][0]
            for channel, values in psums.items():
                image, y, x = where
                self.executed_sums[image, channel, y, x] += sum(values)
                self.executed_psums[firing, lane] += len(values)
            return {}

        return {
            "buffers": fetch,
            "aim": compare,
            "decoder": decode,
            "pe": multiply,
            "core_reduce": reduce,
            "write_back": write,
        }

    def executed(self) -> bool:
        """Whether the tokens of the last run gave the kernel's sums, in the psums it counted."""
        sums = wrap(self.executed_sums, self.machine.accumulator_bits)
        same = (sums == self.accumulators).all() and (self.executed_psums == self.psums).all()
        return bool(same)


# ---------------------------------------------------------------------- memory and energy


def _memory(work: _Work, counted: dict[str, int], timeline: Timeline) -> dict[str, Memory]:
    entry = VALUE_BITS + (work.machine.bundle_channels - 1).bit_length()
    psum = work.machine.accumulator_bits
    read = (counted["activations_fetched"] + counted["weights_fetched"]) * entry
    return {
        "buffers": memory_use(
            capacity_bits=int(SRAM_KB * 8000),
            used_bits=work.weight_bits + work.activation_bits,
            read_bits=read + counted["psums_written"] * psum,
            written_bits=counted["psums_written"] * psum,
            seconds=timeline.seconds,
            source="assumed: 280.6 kB in all, recalled; used by the compressed layer",
        )
    }


def _energy(machine: SNAP, counted: dict[str, int]) -> list[EnergyPart]:
    """Arithmetic, comparators and buffer accesses; nothing for clock, control, leakage, DRAM."""
    table = get_table(SNAP_TABLE)
    entry_bits = VALUE_BITS + (machine.bundle_channels - 1).bit_length()
    multiply = table.entry("multiply.int32", node_nm=NODE_NM)
    add = table.entry("add.int32", node_nm=NODE_NM)
    kib = SRAM_KB * 1000 / 1024
    sram = table.sram(capacity_kib=kib / machine.cores, node_nm=NODE_NM)
    index_bits = (machine.bundle_channels - 1).bit_length()
    compared = counted["aim_passes"] * machine.comparators**2
    fetched = counted["activations_fetched"] + counted["weights_fetched"]
    written = counted["psums_written"]

    def part(name: str, each: float, count: int, what: Entry, how: str) -> EnergyPart:
        return EnergyPart(
            part=name,
            energy_pj=each * count,
            basis=Basis.ASSUMED,
            source=f"{how}; {what.source}",
        )

    return [
        part(
            "multipliers",
            multiply.value * MULTIPLY_16_PJ_OVER_32,
            counted["products"],
            multiply,
            "a quarter of a 32-bit multiplication",
        ),
        part("adders", add.value, counted["products"] + written, add, "a 32-bit addition"),
        part(
            "comparators",
            add.value * index_bits / 32,
            compared,
            add,
            f"{index_bits} of the 32 bits of an addition",
        ),
        part("operand reads", sram.value * entry_bits, fetched, sram, "a value and its index"),
        part(
            "psum read and write",
            2 * sram.value * machine.accumulator_bits,
            written,
            sram,
            "a psum read and written",
        ),
    ]
