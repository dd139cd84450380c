"""Dot: a row of multipliers and an adder tree, fed from DRAM; one output after another.

A DMA brings the kernel of an output channel; the row then walks the pixels, `lanes` products a
cycle, and an adder tree sums them. Outputs leave requantized; inputs are on the chip (assumed).
"""

import sparqsim as sq
from sparqsim.architectures.arrays.datapath import Work, integer_operand, integer_products
from sparqsim.simulator.energy.tables import Basis
from sparqsim.workloads.encoded import as_convolution


class Dot(sq.Machine, frozen=True, kw_only=True):
    """A row of multipliers.

    Attributes
    ----------
    lanes
        Multipliers in the row.
    bytes_per_cycle
        Width of the DRAM interface.
    """

    name = "dot"
    title = "Dot: a row of multipliers and an adder tree"

    lanes: int = 64  # assumed, like every number here
    bytes_per_cycle: int = 16
    clock_hz: float = 1e9

    def __post_init__(self):
        if min(self.lanes, self.bytes_per_cycle, self.clock_hz) < 1:
            raise sq.InputError(f"dot's fields must be at least 1, got {self}")

    def computes(self, layer):
        held = ("int8_unsigned", "int8_signed")
        return sq.Computes(weights=held, activations=held, zero_points=True)

    def bandwidth(self):
        return self.bytes_per_cycle * self.clock_hz

    def lower(self, layer):
        conv = as_convolution(layer.layer)
        depth, outputs = conv.gemm().k, conv.out_channels
        pixels = conv.batch * conv.output[0] * conv.output[1]
        load, store = (-(-size // self.bytes_per_cycle) for size in (depth, pixels))
        netlist = sq.Netlist(
            actors=[
                sq.Actor(name="load", firings=outputs, busy=load, resource="dram"),
                sq.Actor(name="row", firings=outputs, busy=-(-depth // self.lanes) * pixels),
                sq.Actor(name="store", firings=outputs, busy=store, resource="dram"),
            ],
            channels=[
                sq.Channel(name="kernels", source="load", target="row", capacity=2),
                sq.Channel(name="sums", source="row", target="store", capacity=2),
            ],
            resources=[sq.Resource(name="dram")],
            clock_hz=self.clock_hz,
        )
        program = sq.Program(
            netlist=netlist, layer=layer.name, inputs=layer.source, worker="row",
            macs=sq.Macs(dense=conv.macs, effectual=conv.macs), multipliers=self.lanes,
            account=sq.Account([sq.Store(name="dram")], [
                sq.Port(store="dram", actor="load", read_bits=8 * depth),
                sq.Port(store="dram", actor="store", written_bits=8 * pixels),
            ]),
        )  # fmt: skip
        if layer.is_outline:  # shapes and formats without numbers: the time is known all the same
            return program
        x, w = (integer_operand(layer, role) for role in ("activations", "weights"))
        return program.with_work(Work(layer, x, w, integer_products, 32))

    def datasheet(self):
        return [sq.Figure("lanes", str(self.lanes), Basis.ASSUMED, "chosen for the example")]
