"""One product on SCALE-Sim or ZigZag; run by :mod:`benchmarks.peers` with their own Python.

    python peer_tools.py scale-sim|zigzag M K N FOLDER

Prints ``{"array": ..., "memory": ...}``: cycles of the array alone, and with its memories. Both are
given an array of 32 x 32 with the weights stationary; SCALE-Sim three memories of 1 MiB and a
bandwidth it calculates, ZigZag the ``tpu_like`` input that ships with it and its best mapping by
latency.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from pathlib import Path

SIDE = 32
SCALE_SIM = f"""[general]
run_name = run
[architecture_presets]
ArrayHeight: {SIDE}
ArrayWidth: {SIDE}
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 10
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 4
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def scale_sim(m: int, k: int, n: int, folder: Path) -> dict[str, int]:
    """Cycles of its array without stalls, and with what it waits for its memories."""
    from scalesim.scale_sim import scalesim

    config, topology, layout = (folder / f"{name}" for name in ("a.cfg", "t.csv", "l.csv"))
    config.write_text(SCALE_SIM)
    topology.write_text(f"Layer, M, N, K,\nproduct, {m}, {n}, {k},\n")
    layout.write_text("Layer,\n" + "product," + "1," * 20 + "\n")
    tool = scalesim(
        save_disk_space=True, verbose=False, config=str(config), topology=str(topology),
        layout=str(layout), input_type_gemm=True,
    )  # fmt: skip
    tool.run_scale(top_path=str(folder))
    overall, array, *_ = tool.runner.single_layer_sim_object_list[0].get_compute_report_items()
    return {"array": int(array), "memory": int(overall)}


def zigzag(m: int, k: int, n: int, folder: Path) -> dict[str, int]:
    """Cycles of the best mapping: of computation alone, and all of them."""
    import yaml
    import zigzag as package
    from zigzag.api import get_hardware_performance_zigzag

    layer = {
        "id": 0,
        "operator_type": "Gemm",
        "equation": "O[b][k]+=W[k][c]*I[b][c]",
        "loop_dims": ["B", "K", "C"],
        "loop_sizes": [m, n, k],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"W": 0, "I": 0},
    }
    workload = folder / "workload.yaml"
    workload.write_text(yaml.safe_dump([layer]))
    inputs = Path(package.__file__).parent / "inputs"
    _, latency, found = get_hardware_performance_zigzag(
        str(workload),
        str(inputs / "hardware" / "tpu_like.yaml"),
        str(inputs / "mapping" / "tpu_like.yaml"),
        opt="latency",
        dump_folder=str(folder),
        loma_show_progress_bar=False,
    )
    best = found[0][0]
    while isinstance(best, (list, tuple)):
        best = best[0]
    return {"array": int(best.ideal_temporal_cycle), "memory": int(latency)}


def main() -> None:
    """Run the tool that was asked for, silently, and print what it found."""
    tool, *sizes, folder = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    run = {"scale-sim": scale_sim, "zigzag": zigzag}[tool]
    with contextlib.redirect_stdout(io.StringIO()):
        found = run(*map(int, sizes), Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
