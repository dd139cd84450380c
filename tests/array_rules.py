"""Rules, rates and an order of loops that tests of tilings share."""

from __future__ import annotations

from sparqsim.architectures.arrays.cost import Rates
from sparqsim.architectures.arrays.rules import ArrayRules, AuthorsModel, Drain, Layout
from sparqsim.architectures.arrays.shapes import Loop

ORDER = (Loop.BATCH, Loop.COLUMNS, Loop.ROWS, Loop.INPUTS, Loop.OUTPUTS)
AUTHORS = AuthorsModel(layout=Layout.PATCH, outputs_read_back=True, last_store_counted=True)
RULES = ArrayRules(
    pixels_per_step=1,
    outputs_per_step=4,
    reduction_per_step=8,
    reduction_granule=8,
    outputs_padded=True,
    output_granule=4,
    input_bits=8,
    weight_bits=8,
    sum_bits=32,
    output_bits=8,
    input_usable_bits=4096,
    weight_usable_bits=4096,
    output_usable_bits=4096,
    dram_bits=64,
    drain_cycles=11,
    drain=Drain.PER_LAYER,
)
RATES = Rates(
    core_static_per_cycle=1.0,
    core_dynamic_per_compute_cycle=5.0,
    dram_static_per_cycle=0.5,
    input_buffer_read=0.031,
    input_buffer_write=0.037,
    weight_buffer_read=0.041,
    weight_buffer_write=0.043,
    output_buffer_read=0.047,
    output_buffer_write=0.053,
    dram_read=7.0,
    dram_write=11.0,
)
