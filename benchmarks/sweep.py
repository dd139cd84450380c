"""How long do 10,044 points of EIE take, and then none? ``python -m benchmarks.sweep``.

Table III's layers x 4 sizes of the array x 279 queues on two local workers, encoding included.
Processor time of the parent and its workers, and wall time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = ("alex-6", "alex-7", "alex-8", "vgg-6", "vgg-7", "vgg-8", "nt-we", "nt-wd", "nt-lstm")
SWEEP = f"""[[block]]
work = {[f"eie/{name}" for name in LAYERS]}
verify = false
[block.machine]
name = "eie"
pes = [16, 32, 64, 128]
queue_slots = {{ from = 2, to = 280, step = 1 }}
"""


def timed(file: Path, store: Path) -> tuple[float, float]:
    """Processor and wall seconds of a sweep on two workers."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = ["sparqsim.scripts.cli", "sweep", str(file), "--store", str(store), "--workers", "2"]
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent, time.monotonic() - start


def main() -> None:
    """Run the sweep twice into one store and print both times."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "eie.toml"
        file.write_text(SWEEP)
        for what in ("10,044 points", "taken up again"):
            processor, wall = timed(file, Path(folder) / "store")
            print(f"{what:<16}{processor:8.1f} s of processors{wall:8.1f} s wall")


if __name__ == "__main__":
    main()
