"""Array machines whose mapping is searched for, with DRAM as a bus or with rows and banks.

A :class:`TiledMachine` says its rules; the search picks a mapping under them (:mod:`.search`), and
:func:`.tiles.tile_netlist` turns it into a netlist.
"""

from __future__ import annotations

import msgspec
import numpy as np

from sparqsim.architectures.account import Port
from sparqsim.architectures.arrays.cost import Rates
from sparqsim.architectures.arrays.datapath import Multiplied
from sparqsim.architectures.arrays.energies import with_dram
from sparqsim.architectures.arrays.machine import DRAM, KIB, ArrayMachine, Timing
from sparqsim.architectures.arrays.memory import with_banks
from sparqsim.architectures.arrays.rules import ArrayRules, bandwidth, told
from sparqsim.architectures.arrays.scales import GroupScales, with_groups
from sparqsim.architectures.arrays.search import Objective, best_mapping, netlist_of
from sparqsim.architectures.arrays.shapes import ConvShape, Datum, Mapping
from sparqsim.architectures.arrays.tiles import TiledNetlist, tile_netlist
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.simulator.memory.dram import Dram

BUS = "bus"


class TiledMachine(ArrayMachine, frozen=True, kw_only=True):
    """An array machine whose mapping is searched for.

    Attributes
    ----------
    objective
        What a mapping is chosen by: cycles, energy, or their product (edp).
    """

    objective: Objective = Objective.CYCLES

    @property
    def rates(self) -> Rates:
        """The energies as the tiling search takes them.

        Raises
        ------
        InputError
            If the objective needs energies that are not known.
        """
        missing = [entry for entry in self.energies.entries if not entry.is_known]
        if missing and self.objective is not Objective.CYCLES:
            raise InputError(
                f"{self.name}.objective {self.objective.value} needs every energy, but "
                f"{missing[0].name} is {missing[0].source}; choose cycles"
            )
        return super().rates

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """The rules of a run, with activations and weights of those bits."""
        raise NotImplementedError

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks, or None for a bus."""
        return None

    @property
    def dram_bus(self) -> tuple[int, int]:
        """What the DRAM moves as a bus: bits, and in how many cycles of the array."""
        return bandwidth(self.bandwidth(), self.clock_hz)

    @property
    def usable_bits(self) -> tuple[int, int, int]:
        """Usable bits of each buffer for what is in work: half of it."""
        inputs, weights, outputs = (size * KIB // 2 for size in self.buffers_kib)
        return inputs, weights, outputs

    def timing(
        self,
        shape: ConvShape,
        widths: tuple[int, int],
        name: str,
        mapping: Mapping | None = None,
        work: Multiplied | None = None,
        dynamic: bool = False,
        groups: GroupScales | None = None,
    ) -> Timing:
        """The netlist of a layer under a mapping, by default the best."""
        rules = self.layer_rules(shape, widths)
        if groups is not None:
            rules = with_groups(rules, groups)
        if self.dram is not None:
            rules = with_banks(rules, self.dram, self.clock_hz)
        rescale = None
        if dynamic:
            rescale = (self.sum_bits, rules.output_bits)
            rules = msgspec.structs.replace(rules, output_bits=self.sum_bits)
        chosen = mapping or best_mapping(
            shape, rules, self.rates, self.objective, self.clock_hz, self.dram
        )
        if work is None and rescale is None:
            made = netlist_of(shape, rules, chosen, self.clock_hz, self.dram)
        else:
            made = tile_netlist(
                shape,
                rules,
                chosen,
                clock_hz=self.clock_hz,
                dram=self.dram,
                actions=None if work is None else work.actions,
                rescale=rescale,
            )
        inputs, weights, outputs = (kept.used_bits for kept in made.analytic.residences)
        return Timing(
            netlist=made.netlist.named(name),
            analytic=made.analytic,
            products_per_step=self.products_per_step(rules),
            multiplied=shape.macs * rules.weights_of_group // rules.weight_group,
            repeats=rules.repeats,
            capacities=tuple(2 * room for room in rules.usable_bits),  # type: ignore[arg-type]
            used=(inputs, weights, outputs),
            rule=f"{told(rules)}; {self._memory()}",
            ports=tile_ports(made),
        )

    def products_per_step(self, rules: ArrayRules) -> int:
        """Multiplications that the full array does in a step."""
        places = rules.pixels_per_step * rules.outputs_per_step * rules.reduction_per_step
        return places * rules.weights_of_group // rules.weight_group

    def _memory(self) -> str:
        """The memory the run had, in words."""
        if self.dram is None:
            return f"DRAM is a bus of {self.bandwidth() / 1e9:.4g} GB/s without latency"
        return (
            f"DRAM is {self.dram.channels} channel(s) of {self.dram.timing.name}, "
            f"{self.dram.peak_bytes_per_s / 1e9:.4g} GB/s at best"
        )


class BankedMachine(TiledMachine, frozen=True, kw_only=True):
    """An array machine whose DRAM may have rows and banks.

    Attributes
    ----------
    dram_standard
        "bus", of that bandwidth without latency, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    """

    dram_standard: str = BUS
    dram_channels: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        where = type(self).__name__
        if self.dram_standard == BUS:
            if self.dram_channels != 1:
                raise InputError(
                    f"{where}.dram_channels are of a DRAM standard: name one (dram_standard), for "
                    f"example 'DDR4-2400', got {self.dram_standard!r}"
                )
            return
        if self.dram_gbytes_per_s != type(self)().dram_gbytes_per_s:  # type: ignore[call-arg]
            raise InputError(
                f"{where}.dram_gbytes_per_s is of a bus, but {self.dram_standard} has its own "
                "bandwidth: leave one of them out, or choose dram_channels"
            )

    @property
    def energies(self) -> EnergyTable:
        """As of any array; a DRAM standard has an energy of its own."""
        table = super().energies
        return table if self.dram_standard == BUS else with_dram(table, self.dram_standard)

    @property
    def dram(self) -> Dram | None:
        """DRAM with rows and banks; neighbouring bursts take turns among its channels."""
        if self.dram_standard == BUS:
            return None
        mapping = "RoBaCoBg" if self.dram_channels == 1 else "RoBaCoBgCh"
        return Dram(standard=self.dram_standard, channels=self.dram_channels, mapping=mapping)

    def bandwidth(self) -> float:
        """Bytes a second of the DRAM; of a standard, if its data buses never rested."""
        if self.dram is not None:
            return self.dram.peak_bytes_per_s
        return super().bandwidth()

    def of_bandwidth(self, bytes_per_s: float) -> dict[str, float]:
        """Another bandwidth of the bus."""
        if self.dram is not None:
            raise InputError(
                f"the bandwidth of {self.name} is that of its DRAM standard; choose "
                "dram_channels, or leave dram_standard out"
            )
        return super().of_bandwidth(bytes_per_s)


def tile_ports(tiled: TiledNetlist) -> tuple[Port, ...]:
    """Which firings of a netlist of tiles move the closed form's bits.

    A DMA moves its transfers between DRAM and buffer, an equal share on each channel. What else a
    buffer reads and writes it does for the array, as much in every tile.
    """
    counted = msgspec.structs.asdict(tiled.analytic.traffic)
    ports = []
    for datum in Datum:
        buffer = f"{datum.name.lower()}_buffer"
        left = {"read": counted[f"{buffer}_read"], "write": counted[f"{buffer}_write"]}
        for dma in tiled.dmas:
            if dma.datum is not datum:
                continue
            one, other = (buffer, DRAM) if dma.stores else (DRAM, buffer)
            many = len(dma.actors)
            share = dma.bits if many == 1 else np.asarray(dma.bits) / many
            for actor in dma.actors:
                ports.append(Port(store=one, actor=actor, read_bits=share))
                ports.append(Port(store=other, actor=actor, written_bits=share))
            left["read" if dma.stores else "write"] -= dma.bits.total()
        each = {way: total / tiled.analytic.tiles for way, total in left.items()}
        ports.append(
            Port(store=buffer, actor="array", read_bits=each["read"], written_bits=each["write"])
        )
    for way, actors, moved in tiled.rescales:
        for actor in actors:
            each_firing = moved / len(actors) / tiled.netlist.actor(actor).count
            ports.append(Port(store=DRAM, actor=actor, **{f"{way}_bits": each_firing}))
    return tuple(ports)
