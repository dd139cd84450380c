"""How long does a large sweep take, and then none? ``python -m benchmarks.sweep [eie|llama]``.

``eie``: Table III's layers x 4 sizes of the array x 279 queues, 10,044 points, encoding included.
``llama``: 2,000 points of LLaMA-7B on Bit Fusion, half of them prompts of 512 or 2,048 tokens, half
decoding steps of one or 16 sequences behind as many: 5 arrays x 5 bandwidths x 5 recipes x buffers.
On two local workers: processor time of the parent and its workers, and wall time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = ("alex-6", "alex-7", "alex-8", "vgg-6", "vgg-7", "vgg-8", "nt-we", "nt-wd", "nt-lstm")
EIE = f"""[[block]]
work = {[f"eie/{name}" for name in LAYERS]}
verify = false
[block.machine]
name = "eie"
pes = [16, 32, 64, 128]
queue_slots = {{ from = 2, to = 280, step = 1 }}
"""
BIT_FUSION = """recipe = ["int8", "w4a8", "int4", "int16", "w4"]
verify = false
variables = {{ units = [256, 512, 1024, 2048, 4096], scale = {scales} }}
[block.machine]
name = "bitfusion"
rows = {{ derived = "16 if units <= 512 else 32 if units <= 2048 else 64" }}
columns = {{ derived = "units // (16 if units <= 512 else 32 if units <= 2048 else 64)" }}
dram_gbytes_per_s = [12.0, 25.0, 50.0, 100.0, 400.0]
weight_buffer_kib = {{ derived = "64 * scale" }}
input_buffer_kib = {{ derived = "32 * scale" }}
output_buffer_kib = {{ derived = "16 * scale" }}
"""
LLAMA = f"""[[block]]
work = {{ name = "llama_7b", sequence = [512, 2048] }}
{BIT_FUSION.format(scales=[1, 2, 4, 8])}
[[block]]
work = {{ name = "llama_7b", context = [512, 2048], batch = [1, 16] }}
{BIT_FUSION.format(scales=[1, 4])}
"""
SWEEPS = {"eie": ("10,044 points", EIE), "llama": ("2,000 points", LLAMA)}


def timed(file: Path, store: Path) -> tuple[float, float]:
    """Processor and wall seconds of a sweep on two workers."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = ["sparqsim.scripts.cli", "sweep", str(file), "--store", str(store), "--workers", "2"]
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent, time.monotonic() - start


def main() -> None:
    """Run a sweep twice into one store and print both times."""
    points, sweep = SWEEPS[sys.argv[1] if len(sys.argv) > 1 else "eie"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.toml"
        file.write_text(sweep)
        for what in (points, "taken up again"):
            processor, wall = timed(file, Path(folder) / "store")
            print(f"{what:<16}{processor:8.1f} s of processors{wall:8.1f} s wall")


if __name__ == "__main__":
    main()
