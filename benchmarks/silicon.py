"""How fast are a CUDA GPU's products, dense and 2:4, and its memories?

    python -m benchmarks.silicon --out DIR [--parts micro,bulk,products] [--seconds 0.6]

Writes ``DIR/facts.json`` (board, driver, libraries, limits), ``DIR/micro.json`` (latencies and
bandwidths of L2 and DRAM, a node of a CUDA graph, power of a board that only spins or streams),
``DIR/bulk.json`` (bandwidths of bulk copies, which products use) and
``DIR/products.csv``, a table for ``sparqsim validate sparse-tensor-core --against``. Needs a card
of compute capability 9.0, and torch, cupy and pynvml there; nothing of the project, so that the
file can be copied to the card alone. No setting of the board is changed.

A product is ``y[rows, columns] = w[rows, depth] x[columns, depth]^T``: ``torch.mm``,
``torch._int_mm`` and ``torch._scaled_mm`` (dense), ``torch._cslt_sparse_mm`` with its searched
algorithm (2:4). It is timed in replays of a CUDA graph, which leaves the host out: ``cold_us`` is
the median over replays with operands that rotate over ``copies`` sets, more than L2 holds;
``warm_us`` is that of one set again and again. Clock and power are NVML's, seen every 10 ms; NVML's
power is a mean over about a second, so that it says little of a shorter window.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = ("dense", "2:4")
BYTES = {"fp16": (2, 2), "int8": (1, 4), "fp8": (1, 2)}  # of an operand, of a sum that is stored
COLD_BYTES = 160 * 2**20  # derived: over three times an L2 of 50 MiB
MOST_COPIES = 24
FIELDS = (
    *("dtype", "library", "rows", "columns", "depth", "cold_us", "cold_least", "cold_most"),
    *("warm_us", "mhz", "power_w", "window_s", "copies", "alg", "kernel"),
)
CHASED_MIB = (1, 4, 16, 32, 96, 256, 512)
STREAMED_MIB = (4, 8, 16, 24, 32, 40, 64, 4096)
LLAMA = ((4096, 4096), (11008, 4096), (4096, 11008))  # rows, depth of layers of a 7 B model
KERNELS = r"""
extern "C" __global__ void chase(const unsigned* p, int steps, int warm, unsigned* last,
                                 long long* cycles) {
  unsigned i = 0;
  for (int s = 0; s < warm; s++)
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(i) : "l"(p + (size_t)i * 32));
  long long begin = clock64();
  for (int s = 0; s < steps; s++)
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(i) : "l"(p + (size_t)i * 32));
  cycles[0] = clock64() - begin;
  last[0] = i;
}
extern "C" __global__ void stream(const uint4* p, long long words, int times, unsigned* out) {
  unsigned sum = 0;
  long long first = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  for (int r = 0; r < times; r++)
    for (long long i = first; i < words; i += (long long)gridDim.x * blockDim.x) {
      uint4 v;
      asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                   : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p + i));
      sum += v.x ^ v.y ^ v.z ^ v.w;
    }
  if (sum == 12345) out[0] = sum;
}
extern "C" __global__ void panels(const uint4* p, long long pitch, int steps, unsigned* out) {
  // A block of 512 threads reads 64 rows, 128 bytes of each at a time, as a product's tile does.
  unsigned sum = 0;
  const uint4* mine = p + (blockIdx.x * 64 + threadIdx.x / 8) * pitch + threadIdx.x % 8;
  #pragma unroll 8
  for (int s = 0; s < steps; s++) {
    uint4 v;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(mine + 8 * s));
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 12345) out[0] = sum;
}
extern "C" __global__ void write(uint4* p, long long words, int times) {
  long long first = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  for (int r = 0; r < times; r++)
    for (long long i = first; i < words; i += (long long)gridDim.x * blockDim.x)
      p[i] = make_uint4(r, i, 1, 2);
}
extern "C" __global__ void spin(long long cycles) {
  long long begin = clock64();
  while (clock64() - begin < cycles) {}
}
extern "C" __global__ void empty() {}
"""


BULK = r"""
extern "C" __global__ void bulk(const char* p, long long bytes, int times, int each) {
  // One thread a block copies pieces into four stages of shared memory, as a product's producer.
  extern __shared__ __align__(128) char room[];
  __shared__ __align__(8) unsigned long long bars[4];
  if (threadIdx.x) return;
  unsigned bar[4], to[4];
  for (int s = 0; s < 4; s++) {
    bar[s] = __cvta_generic_to_shared(&bars[s]);
    to[s] = __cvta_generic_to_shared(room + s * each);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(bar[s]));
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  long long pieces = bytes / each, mine = (pieces - blockIdx.x + gridDim.x - 1) / gridDim.x;
  long long count = mine * times;
  for (long long i = 0; i < count + 4; i++) {
    int s = i % 4;
    if (i >= 4) {
      unsigned done = 0, phase = (i / 4 - 1) & 1;
      while (!done)
        asm volatile("{ .reg .pred q; mbarrier.try_wait.parity.shared::cta.b64 q, [%1], %2;"
                     " selp.u32 %0, 1, 0, q; }" : "=r"(done) : "r"(bar[s]), "r"(phase) : "memory");
    }
    if (i < count) {
      const char* from = p + (blockIdx.x + (i % mine) * gridDim.x) * each;
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                   :: "r"(bar[s]), "r"(each) : "memory");
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                   " [%0], [%1], %2, [%3];"
                   :: "r"(to[s]), "l"(from), "r"(each), "r"(bar[s]) : "memory");
    }
  }
}
"""


def shapes() -> list[tuple[int, int, int]]:
    """Rows, columns, depth: squares, layers of language models, products of rtx3090_gemm.csv."""
    squares = [(n, n, n) for n in (512, 1024, 2048, 3072, 4096, 6144, 8192, 16384)]
    tokens = (4096, 2048, 1024, 512, 256, 128, 64, 16)
    layers = [(rows, columns, depth) for rows, depth in LLAMA for columns in tokens]
    depths = (768, 1536, 3072, 6144, 12288)
    venom = [(rows, 4096, depth) for rows in (768, 1024) for depth in depths]
    distilbert = [(768, columns, 3072) for columns in (3072, 12288, 49152)]
    more = [
        (4096, 8192, 1024), (32000, 256, 4096), (28672, 1024, 8192), (8192, 1024, 28672),
        (10240, 512, 8192), (2304, 4096, 768), (640, 4096, 2560), (5120, 2048, 5120),
        (1024, 256, 2048), (2048, 8192, 128), (8192, 8192, 256),
    ]  # fmt: skip
    return list(dict.fromkeys([*squares, *layers, *venom, *distilbert, *more]))


class Card:
    """The GPU and its counters, with the modules that reach it."""

    def __init__(self) -> None:
        modules = []
        for name in ("torch", "cupy", "pynvml"):
            try:
                modules.append(import_module(name))
            except ImportError as error:
                raise SystemExit(
                    f"silicon needs torch, cupy and pynvml on a machine with a CUDA GPU; {name} "
                    f"cannot be imported: {error}"
                ) from error
        self.torch, self.cupy, self.nvml = modules
        if not self.torch.cuda.is_available():
            raise SystemExit("silicon needs a CUDA GPU; torch finds none")
        self.nvml.nvmlInit()
        self.handle = self.nvml.nvmlDeviceGetHandleByIndex(0)
        self._seen: list[tuple[float, float]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            power = self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3
            self._seen.append((self.clock_mhz(), power))
            time.sleep(0.01)

    def clock_mhz(self) -> float:
        """Of the SMs, now."""
        return float(self.nvml.nvmlDeviceGetClockInfo(self.handle, self.nvml.NVML_CLOCK_SM))

    @contextlib.contextmanager
    def watched(self) -> Iterator[dict[str, float]]:
        """Mean clock and power, and the length, of what runs inside; known when it has ended."""
        found: dict[str, float] = {}
        begin, first = time.time(), len(self._seen)
        yield found
        seen = self._seen[first + 2 :] or self._seen[-1:]
        clocks, powers = zip(*seen, strict=True)
        found["mhz"], found["power_w"] = statistics.fmean(clocks), statistics.fmean(powers)
        found["window_s"] = time.time() - begin

    def facts(self) -> dict[str, Any]:
        """Board, driver, libraries and limits."""
        of, torch, nvml = self.torch.cuda.get_device_properties(0), self.torch, self.nvml
        return {
            "name": of.name,
            "sms": of.multi_processor_count,
            "l2_bytes": of.L2_cache_size,
            "memory_bytes": of.total_memory,
            "driver": nvml.nvmlSystemGetDriverVersion(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cusparselt": torch.backends.cusparselt.version(),
            "max_sm_mhz": nvml.nvmlDeviceGetMaxClockInfo(self.handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": nvml.nvmlDeviceGetMaxClockInfo(self.handle, nvml.NVML_CLOCK_MEM),
            "power_limit_w": nvml.nvmlDeviceGetEnforcedPowerLimit(self.handle) / 1e3,
            "idle_power_w": nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3,
        }


# ------------------------------------------------------------------ memories


class Micro:
    """Small kernels of our own: latencies, bandwidths, a graph's node, power at rest."""

    def __init__(self, card: Card, seconds: float) -> None:
        self.card, self.seconds = card, seconds
        module = card.cupy.RawModule(code=KERNELS, options=("-arch=sm_90a",))
        names = ("chase", "stream", "panels", "write", "spin", "empty")
        self.kernels = {name: module.get_function(name) for name in names}

    def measure(self) -> dict[str, float]:
        """All of them, by name."""
        found = {f"chase_{mib}_mib_cycles": self.latency_cycles(mib) for mib in CHASED_MIB}
        for mib in STREAMED_MIB:
            found[f"stream_{mib}_mib_gbytes_per_s"] = self.bandwidth("stream", mib)
        found["write_4096_mib_gbytes_per_s"] = self.bandwidth("write", 4096)
        found["panels_8192_bytes_gbytes_per_s"] = self.panels()
        found["graph_node_us"] = self.graph_node_us()
        sms = self.card.torch.cuda.get_device_properties(0).multi_processor_count
        for name, launch in {
            "spin": lambda: self.kernels["spin"]((sms,), (128,), (20_000_000,)),
            "l2": self._launcher("stream", 32, sms),
            "dram": self._launcher("stream", 4096, sms),
        }.items():
            found |= {f"{name}_{key}": value for key, value in self.power(launch).items()}
        return found

    def latency_cycles(self, mib: int, steps: int = 20_000) -> float:
        """Cycles of a load that waits for the one before, over a footprint; L1 is passed by."""
        import numpy as np

        cp, lines = self.card.cupy, mib * 2**20 // 128
        order = np.random.default_rng(1).permutation(lines).astype(np.uint32)
        chain = np.zeros((lines, 32), np.uint32)
        chain[order, 0] = np.roll(order, -1)
        last, cycles = cp.zeros(1, cp.uint32), cp.zeros(1, cp.int64)
        warm = np.int32(lines if mib <= 16 else 2000)
        arguments = (cp.asarray(chain.ravel()), np.int32(steps), warm, last, cycles)
        self.kernels["chase"]((1,), (1,), arguments)
        return float(cycles[0]) / steps

    def bandwidth(self, name: str, mib: int) -> float:
        """GB/s of the best grid that reads or writes a footprint again and again."""
        cp = self.card.cupy
        sms = self.card.torch.cuda.get_device_properties(0).multi_processor_count
        times = max(2, 1600 // mib)
        best = 0.0
        for blocks in (4 * sms, 8 * sms, 16 * sms):
            for threads in (256, 512, 1024):
                self._launcher(name, mib, blocks, threads, 2)()
                begin, end = cp.cuda.Event(), cp.cuda.Event()
                launch = self._launcher(name, mib, blocks, threads, times)
                begin.record()
                launch()
                end.record()
                end.synchronize()
                best = max(best, mib * 2**20 * times / cp.cuda.get_elapsed_time(begin, end) / 1e6)
        return best

    def panels(self, pitch: int = 8192, blocks: int = 8192) -> float:
        """GB/s of blocks that read 64 rows of ``pitch`` bytes each, 128 bytes of all at a time."""
        import numpy as np

        cp = self.card.cupy
        room, out = cp.zeros(blocks * 64 * pitch // 4, cp.uint32), cp.zeros(1, cp.uint32)
        arguments = (room, np.int64(pitch // 16), np.int32(pitch // 128), out)
        times = []
        for _ in range(5):
            begin, end = cp.cuda.Event(), cp.cuda.Event()
            begin.record()
            self.kernels["panels"]((blocks,), (512,), arguments)
            end.record()
            end.synchronize()
            times.append(cp.cuda.get_elapsed_time(begin, end))
        return float(blocks * 64 * pitch / min(times) / 1e6)

    def bulk(self) -> dict[str, float]:
        """GB/s of bulk copies into shared memory, one block an SM, by footprint: L2 and DRAM."""
        import numpy as np

        cp, each, found = self.card.cupy, 32768, {}
        kernel = cp.RawModule(code=BULK, options=("-arch=sm_90a",)).get_function("bulk")
        kernel.max_dynamic_shared_size_bytes = 4 * each
        sms = self.card.torch.cuda.get_device_properties(0).multi_processor_count
        for mib in STREAMED_MIB[1:]:
            room, times = cp.zeros(mib * 2**18, cp.uint32), max(2, 1600 // mib)
            arguments = room, np.int64(mib * 2**20), np.int32(times), np.int32(each)
            best = 0.0
            for _ in range(4):
                begin, end = cp.cuda.Event(), cp.cuda.Event()
                begin.record()
                kernel((sms,), (32,), arguments, shared_mem=4 * each)
                end.record()
                end.synchronize()
                best = max(best, mib * 2**20 * times / cp.cuda.get_elapsed_time(begin, end) / 1e6)
            found[f"bulk_{mib}_mib_gbytes_per_s"] = best
        return found

    def _launcher(
        self, name: str, mib: int, blocks: int, threads: int = 1024, times: int = 20
    ) -> Callable[[], None]:
        import numpy as np

        cp = self.card.cupy
        room, out = cp.zeros(mib * 2**18, cp.uint32), cp.zeros(1, cp.uint32)
        arguments = [room, np.int64(mib * 2**16), np.int32(times)] + [out] * (name == "stream")
        return lambda: self.kernels[name]((blocks,), (threads,), tuple(arguments))

    def graph_node_us(self, nodes: int = 1000) -> float:
        """Time of an empty kernel between others in a graph."""
        cp = self.card.cupy
        stream = cp.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            for _ in range(nodes):
                self.kernels["empty"]((1,), (32,), ())
            graph = stream.end_capture()
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        graph.launch(stream)
        begin.record(stream)
        graph.launch(stream)
        end.record(stream)
        end.synchronize()
        return 1e3 * float(cp.cuda.get_elapsed_time(begin, end)) / nodes

    def power(self, launch: Callable[[], None]) -> dict[str, float]:
        """Power and clock of a kernel again and again, once NVML's mean has forgotten the rest."""
        self._for(2.0, launch)
        with self.card.watched() as found:
            self._for(max(2.0, self.seconds), launch)
        return found

    def _for(self, seconds: float, launch: Callable[[], None]) -> None:
        end = time.time() + seconds
        while time.time() < end:
            launch()
            self.card.cupy.cuda.Device().synchronize()


# ------------------------------------------------------------------ products


class Products:
    """Products of the libraries, one after the other."""

    def __init__(self, card: Card, seconds: float) -> None:
        self.card, self.torch, self.seconds = card, card.torch, seconds
        self.one = self.torch.ones((), device="cuda")

    def measure(self, dtype: str, library: str, shape: tuple[int, int, int]) -> dict[str, Any]:
        """A row of the table."""
        rows, columns, depth = shape
        operand, output = BYTES[dtype]
        size = (rows + columns) * depth * operand + rows * columns * output
        copies = min(MOST_COPIES, max(2, -(-COLD_BYTES // size)))
        calls, algorithm = self.calls(dtype, library, shape, copies)
        cold, warm = self.timed(calls, self.seconds), self.timed(calls[:1], self.seconds / 4)
        return {
            "dtype": dtype, "library": library, "rows": rows, "columns": columns, "depth": depth,
            "cold_us": round(cold["us"], 3), "cold_least": round(cold["least"], 3),
            "cold_most": round(cold["most"], 3), "warm_us": round(warm["us"], 3),
            "mhz": round(cold["mhz"]), "power_w": round(cold["power_w"], 1),
            "window_s": round(cold["window_s"], 3), "copies": copies, "alg": algorithm,
            "kernel": self.kernel(calls[0]),
        }  # fmt: skip

    def calls(
        self, dtype: str, library: str, shape: tuple[int, int, int], copies: int
    ) -> tuple[list[Callable[[], Any]], int | None]:
        """A call for each set of operands, and the sparse library's algorithm."""
        torch, (rows, columns, depth) = self.torch, shape
        kind = {"fp16": torch.float16, "int8": torch.int8, "fp8": torch.float8_e4m3fn}[dtype]
        more = {"int8": {"out_dtype": torch.int32}, "fp8": {"out_dtype": torch.bfloat16}}
        found: list[Callable[[], Any]] = []
        algorithm = None
        for _ in range(copies):
            w, x = self._drawn(dtype, rows, depth), self._drawn(dtype, columns, depth).to(kind)
            if library == "dense":
                found.append(self._dense(dtype, w.to(kind), x))
                continue
            options = dict(more.get(dtype, {}))
            w = torch._cslt_compress(self._pruned(w).to(kind))
            if algorithm is None:
                algorithm = int(torch._cslt_sparse_mm_search(w, x.t(), **options))
            options["alg_id"] = algorithm
            found.append(lambda w=w, x=x, o=options: torch._cslt_sparse_mm(w, x.t(), **o))
        return found, algorithm

    def _drawn(self, dtype: str, rows: int, depth: int) -> Any:
        """Normal numbers; whole ones are uniform."""
        if dtype == "int8":
            return self.torch.randint(-127, 128, (rows, depth), device="cuda").float()
        return self.torch.randn(rows, depth, device="cuda")

    def _dense(self, dtype: str, w: Any, x: Any) -> Callable[[], Any]:
        torch = self.torch
        if dtype == "int8":
            return lambda: torch._int_mm(x, w.t())
        if dtype == "fp8":
            bf16 = torch.bfloat16
            return lambda: torch._scaled_mm(x, w.t(), self.one, self.one, out_dtype=bf16)
        return lambda: torch.mm(x, w.t())

    def _pruned(self, w: Any) -> Any:
        """The two larger of every four neighbours."""
        torch, groups = self.torch, w.view(w.shape[0], -1, 4)
        keep = groups.abs().argsort(dim=2)[..., 2:]
        mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, keep, True)
        return torch.where(mask, groups, 0.0).view(w.shape)

    def timed(self, calls: list[Callable[[], Any]], seconds: float) -> dict[str, float]:
        """Microseconds of a call (median, least, most of the replays), clock, power, window."""
        torch = self.torch
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.synchronize()
        once = self._replay(self._graph(calls, 1), 1)[0] * 1e-6
        repeats = max(1, min(600 // len(calls), int(2e-3 / once) + 1))
        graph = self._graph(calls, repeats)
        length = repeats * once
        self._replay(graph, max(1, int(seconds / 2 / length)))
        with self.card.watched() as found:
            each = self._replay(graph, max(3, int(seconds / length)))
        us = [time / repeats / len(calls) for time in each]
        return {"us": statistics.median(us), "least": min(us), "most": max(us), **found}

    def _graph(self, calls: list[Callable[[], Any]], repeats: int) -> Any:
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            for _ in range(repeats):
                for call in calls:
                    call()
        return graph

    def _replay(self, graph: Any, times: int) -> list[float]:
        """Microseconds of each replay."""
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
        events[-1].synchronize()
        return [1e3 * a.elapsed_time(b) for a, b in itertools.pairwise(events)]

    def kernel(self, call: Callable[[], Any]) -> str:
        """Names of what runs on the card in a call."""
        profiler = self.torch.profiler
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as found:
            call()
            self.torch.cuda.synchronize()
        events = [each for each in found.key_averages() if each.device_type.name == "CUDA"]
        return " + ".join(dict.fromkeys(each.key[:160] for each in events))


def main() -> None:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is measured")
    parser.add_argument("--parts", default="micro,bulk,products", help="which, with commas between")
    parser.add_argument(
        "--formats", default="fp16,int8,fp8", help="of products, with commas between"
    )
    parser.add_argument("--seconds", type=float, default=0.6, help="that a product is run for")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds to begin products in")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    card, begin = Card(), time.time()
    (options.out / "facts.json").write_text(json.dumps(card.facts(), indent=1, default=str))
    parts = options.parts.split(",")
    if "micro" in parts:
        found = Micro(card, options.seconds).measure()
        (options.out / "micro.json").write_text(json.dumps(found, indent=1))
        card.cupy.get_default_memory_pool().free_all_blocks()
    if "bulk" in parts:
        found = Micro(card, options.seconds).bulk()
        (options.out / "bulk.json").write_text(json.dumps(found, indent=1))
    if "products" not in parts:
        return
    products = Products(card, options.seconds)
    with (options.out / "products.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for dtype in options.formats.split(","):
            for shape in shapes():
                for library in LIBRARIES:
                    if time.time() - begin > options.limit:
                        print("out of time at", dtype, library, shape)
                        return
                    try:
                        row = products.measure(dtype, library, shape)
                    except RuntimeError as error:  # torch._int_mm wants more than 16 columns
                        print("refused", dtype, library, shape, str(error).splitlines()[0])
                        continue
                    table.writerow(row)
                    file.flush()
                    print(
                        dtype, library, shape, row["cold_us"], "us", row["mhz"], row["kernel"][:60]
                    )
                card.torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
