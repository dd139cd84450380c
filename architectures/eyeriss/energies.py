"""What a multiply-accumulate costs, and a word's move by the paper's ratios to it.

The ratios are those of the chip; for another grid or buffer they follow its size.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparqsim.simulator.energy.scaling import Factor, follow
from sparqsim.simulator.energy.tables import Basis, Entry, Kind, Unit, get_table

WORD_BITS = 16  # published
NODE_NM = 65.0  # published
# published, ISCA 2016: energy of a word's move over that of a multiply-accumulate
RELATIVE = {"spad": 1.0, "noc": 2.0, "glb": 6.0, "dram": 200.0}


def mac_energy_pj() -> tuple[float, str]:
    """Energy of a 16-bit multiply and add at 65 nm, and how it was had."""
    table = get_table("horowitz")
    small, large = table.entry("multiply.int8"), table.entry("multiply.int32")
    add = table.entry("add.int32").at_node(NODE_NM)
    factor = add.value / table.entry("add.int32").value
    multiply = (small.value * large.value) ** 0.5 * factor  # 16 is the geometric mean of 8 and 32
    return multiply + add.value, "horowitz: 16-bit multiply between 8 and 32 bits, at 65 nm"


def per_bit(part: str, factors: Iterable[Factor] = ()) -> Entry:
    """What a bit costs of a word's move, by the paper's ratios and what has changed since."""
    mac, source = mac_energy_pj()
    chip = Entry(
        name=part,
        value=mac * RELATIVE[part] / WORD_BITS,
        unit=Unit.PJ_PER_BIT,
        node_nm=NODE_NM,
        kind={"noc": Kind.LOGIC, "dram": Kind.OFF_CHIP}.get(part, Kind.MEMORY),
        basis=Basis.ASSUMED,
        source=f"{RELATIVE[part]:g} x MAC a word (ISCA 2016); MAC: {source}",
    )
    return follow(chip, factors)
