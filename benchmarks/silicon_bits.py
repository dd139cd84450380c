"""What do a GPU's tensor cores make of sums, bit by bit? ``python -m benchmarks.silicon_bits``.

    python -m benchmarks.silicon_bits --out DIR [--tiles 4]

Draws operands, multiplies them on the card and writes ``DIR/bits.npz``: operands and sums as bit
patterns, for ``sparqsim validate tensor-core-bits --against DIR/bits.npz``. ``mma.sync``,
``mma.sp`` and ``wgmma.sp`` are written out in PTX (compiled by CuPy); ``wgmma`` is what Triton
makes of ``tl.dot``, a chain of instructions from ``c`` along the whole depth, seen to be ``wgmma``
in its PTX. fp8 is in the last two alone: of its ``mma.sync`` the assembler makes conversions to
fp16 and that format's. Needs a card of compute capability 9.0, and numpy, torch, cupy and triton
there; nothing of the project, so that the file can be copied to the card alone.

Keys are ``instruction/format/draw/array``; ``about`` is the card, in JSON. Arrays, of each tile:
``a`` [rows, kept] and ``b`` [columns, depth] codes, ``c`` and ``d`` = ``a b + c`` [rows, columns]
fp32; of sparse ones also ``places`` [rows, kept], the place of each value in its group (of 4; tf32:
of 2). That operands lie where the instruction wants them is asserted on small whole numbers, on
which every order gives one sum.

Draws: ``narrow``, ``wide`` and ``wider`` are normal numbers times powers of two; ``cancel`` has a
pair of large products that cancel; ``least`` has subnormal operands and sums; ``most`` has sums
that overflow where the format can.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Format(NamedTuple):
    """How a format is drawn: name in PTX and torch, powers of two that draws are scaled by."""

    ptx: str
    torch: str
    spread: tuple[int, int, int]  # of narrow, wide, wider
    least: int  # operands of about 2^least have subnormals, themselves or as sums
    most: int  # operands of about 2^most are the largest whose products do not overflow


FORMATS = {
    "fp16": Format("f16", "float16", (0, 6, 9), -14, 13),
    "bf16": Format("bf16", "bfloat16", (0, 6, 12), -70, 62),
    "tf32": Format("tf32", "float32", (0, 6, 12), -70, 62),
    "e4m3": Format("e4m3", "float8_e4m3fn", (0, 3, 5), -6, 6),
    "e5m2": Format("e5m2", "float8_e5m2", (0, 3, 9), -14, 13),
}
DRAWS = ("narrow", "wide", "wider", "cancel", "least", "most")


class Instruction(NamedTuple):
    """An instruction: name in PTX, depth, values kept of a group, bits of a place, rows x 8."""

    ptx: str
    depth: int
    kept: int = 1
    group: int = 1
    place_bits: int = 0
    rows: int = 16

    @property
    def stored(self) -> int:
        """Values of the left operand along the depth."""
        return self.depth // self.group * self.kept


MMA = {
    ("mma", "fp16"): Instruction("mma.sync.aligned.m16n8k16", 16),
    ("mma", "bf16"): Instruction("mma.sync.aligned.m16n8k16", 16),
    ("mma", "tf32"): Instruction("mma.sync.aligned.m16n8k8", 8),
    ("mma.sp", "fp16"): Instruction(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32", 32, 2, 4, 2
    ),
    ("mma.sp", "bf16"): Instruction(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32", 32, 2, 4, 2
    ),
    ("mma.sp", "tf32"): Instruction(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k16", 16, 1, 2, 4
    ),
}  # fmt: skip
WGMMA_SP = {
    ("wgmma.sp", name): Instruction(
        f"wgmma.mma_async.sp.sync.aligned.m64n8k{depth}", depth, 2, 4, 2, rows=64
    )
    for name, depth in (("fp16", 32), ("bf16", 32), ("e4m3", 64), ("e5m2", 64))
}
WGMMA = ("fp16", "bf16", "tf32", "e4m3", "e5m2")
DEPTHS = (64, 512)  # of wgmma's chains
STEP, SIDE = 64, 64  # of a tl.dot

KERNEL = r"""
extern "C" __global__ void multiply(
    const unsigned* A, const unsigned* B, const unsigned* E, const float* C, float* D) {
  int lane = threadIdx.x, g = lane >> 2, t = lane & 3;
  A += blockIdx.x * 128; B += blockIdx.x * 8 * WORDS; E += blockIdx.x * 32;
  C += blockIdx.x * 128; D += blockIdx.x * 128;
  unsigned a0 = A[g*8+t], a1 = A[(g+8)*8+t], a2 = A[g*8+t+4], a3 = A[(g+8)*8+t+4], e = E[lane];
  unsigned b0 = B[g*WORDS+t], b1 = B[g*WORDS+t+4];
  unsigned b2 = B[g*WORDS+(t+8)%WORDS], b3 = B[g*WORDS+(t+12)%WORDS];
  float c0 = C[g*8+2*t], c1 = C[g*8+2*t+1], c2 = C[(g+8)*8+2*t], c3 = C[(g+8)*8+2*t+1];
  float d0, d1, d2, d3;
  asm volatile("INSTRUCTION {%0,%1,%2,%3},{%4,%5,%6,%7},OPERANDS;"
    : "=f"(d0),"=f"(d1),"=f"(d2),"=f"(d3)
    : "r"(a0),"r"(a1),"r"(a2),"r"(a3),"r"(b0),"r"(b1),"r"(b2),"r"(b3),
      "f"(c0),"f"(c1),"f"(c2),"f"(c3),"r"(e));
  D[g*8+2*t] = d0; D[g*8+2*t+1] = d1; D[(g+8)*8+2*t] = d2; D[(g+8)*8+2*t+1] = d3;
}
"""
SUMS = "{%12,%13,%14,%15}"

# b lies in shared memory as core matrices of 8 columns x 16 bytes, 128 bytes apart along the depth.
KERNEL_OF_64 = r"""
extern "C" __global__ void multiply(
    const unsigned* A, const unsigned* B, const unsigned* E, const float* C, float* D) {
  __shared__ __align__(128) unsigned shared[128];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  A += (blockIdx.x * 64 + warp * 16) * 8; B += blockIdx.x * 128; E += blockIdx.x * 128;
  C += (blockIdx.x * 64 + warp * 16) * 8; D += (blockIdx.x * 64 + warp * 16) * 8;
  int column = threadIdx.x >> 4, word = threadIdx.x & 15;
  shared[(word >> 2) * 32 + column * 4 + (word & 3)] = B[column * 16 + word];
  __syncthreads();
  asm volatile("fence.proxy.async;" ::: "memory");
  unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  unsigned long long desc = ((address & 0x3FFFFull) >> 4) | (8ull << 16) | (8ull << 32);
  unsigned a0 = A[g*8+t], a1 = A[(g+8)*8+t], a2 = A[g*8+t+4], a3 = A[(g+8)*8+t+4];
  unsigned e = E[threadIdx.x];
  float d0 = C[g*8+2*t], d1 = C[g*8+2*t+1], d2 = C[(g+8)*8+2*t], d3 = C[(g+8)*8+2*t+1];
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  asm volatile("{.reg .pred p; setp.ne.b32 p, 1, 0;\n"
    "INSTRUCTION {%0,%1,%2,%3},{%4,%5,%6,%7},%8,%9,0x0,p,1,1TAIL;}"
    : "+f"(d0),"+f"(d1),"+f"(d2),"+f"(d3)
    : "r"(a0),"r"(a1),"r"(a2),"r"(a3),"l"(desc),"r"(e) : "memory");
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  D[g*8+2*t] = d0; D[g*8+2*t+1] = d1; D[(g+8)*8+2*t] = d2; D[(g+8)*8+2*t+1] = d3;
}
"""

DOT = """
import triton
import triton.language as tl


@triton.jit
def dot(A, B, C, D, DEPTH: tl.constexpr, STEP: tl.constexpr, SIDE: tl.constexpr):
    tile = tl.program_id(0)
    m, n, k = tl.arange(0, SIDE), tl.arange(0, SIDE), tl.arange(0, STEP)
    place = tile * SIDE * SIDE + m[:, None] * SIDE + n[None, :]
    sums = tl.load(C + place)
    for at in range(0, DEPTH, STEP):
        a = tl.load(A + (tile * SIDE + m[:, None]) * DEPTH + at + k[None, :])
        b = tl.load(B + (tile * SIDE + n[None, :]) * DEPTH + at + k[:, None])
        sums = tl.dot(a, b, sums, input_precision="tf32")
    tl.store(D + place, sums)
"""


# ------------------------------------------------------------------ operands


def drawn(
    rng: np.random.Generator,
    format_: Format,
    draw: str,
    sizes: tuple[int, int, int],
    instruction: Instruction,
) -> tuple[Any, Any, Any]:
    """Operands a [tiles, rows, kept], b [tiles, columns, depth] and sums c, as float64.

    ``sizes`` are tiles, rows and columns.
    """

    def normal(spread: int, power: int, *shape: int) -> Any:
        return rng.normal(size=shape) * 2.0 ** (power + rng.integers(-spread, spread + 1, shape))

    narrow, wide, wider = format_.spread
    spread = {"narrow": narrow, "wider": wider, "least": 3, "most": 1}.get(draw, wide)
    power = {"least": format_.least, "most": format_.most}.get(draw, 0)
    tiles, rows, columns = sizes
    a = normal(spread, power, tiles, rows, instruction.stored)
    b = normal(spread, power, tiles, columns, instruction.depth)
    c = normal(2 * spread, 2 * power, *sizes) * (rng.random(sizes) < 0.7)
    if draw == "cancel":
        first, second = rng.permutation(instruction.stored)[:2]
        a[..., first] *= 2.0**wide
        a[..., second] = -a[..., first]
        for at in (first, second):  # whichever neighbour is picked, both meet the same value
            place = at // instruction.kept * instruction.group
            b[..., place : place + instruction.group] = b[..., :1]
    return a, b, c


def codes(values: Any, format_: Format) -> Any:
    """Values rounded to a format, as bit patterns."""
    import torch

    kind = getattr(torch, format_.torch)
    limit = float(torch.finfo(kind).max)
    found = torch.tensor(np.clip(values, -limit, limit)).to(torch.float32).to(kind)
    size = found.element_size()
    bits = found.view(getattr(torch, f"int{8 * size}")).numpy().view(f"u{size}")
    return bits & np.uint32(0xFFFFE000) if format_.ptx == "tf32" else bits


def on_card(bits: Any, format_: Format) -> Any:
    """Bit patterns as a tensor of their format on the card."""
    import torch

    signed = torch.tensor(bits.view(f"i{bits.dtype.itemsize}"))
    return signed.view(getattr(torch, format_.torch)).cuda()


# ------------------------------------------------------------------ on the card


def compiled(instruction: Instruction, format_: Format) -> Any:
    """The kernel of an instruction, a warp for 16 rows of a tile."""
    import cupy

    sparse = instruction.kept < instruction.group
    if instruction.rows == 64:
        name = f"{instruction.ptx}.f32.{format_.ptx}.{format_.ptx}"
        last = ",0" if format_.ptx in ("f16", "bf16") else ""  # 8-bit ones cannot turn b around
        code = KERNEL_OF_64.replace("INSTRUCTION", name).replace("TAIL", last)
    else:
        name = f"{instruction.ptx}.row.col.f32.{format_.ptx}.{format_.ptx}.f32"
        operands = "{%8,%9,%10,%11}" if sparse else "{%8,%9}"
        operands += f",{SUMS},%16,0x0" if sparse else f",{SUMS}"
        code = KERNEL.replace("INSTRUCTION", name).replace("OPERANDS", operands)
        code = code.replace("WORDS", "16" if sparse else "8")
    return cupy.RawModule(code=code, options=("-arch=sm_90a",)).get_function("multiply")


def metadata(places: Any, instruction: Instruction) -> Any:
    """Places [tiles, rows, kept] as registers [tiles * rows / 16, 32 lanes].

    Four lanes have those of rows g and g + 8: of 32 bits a row two lanes each half of both, of 64
    bits (8-bit formats) lanes 0 and 2 the halves of g, 1 and 3 those of g + 8.
    """
    kept = places.shape[2]
    places = places.reshape(-1, 16, kept)
    found = np.zeros((len(places), 32), np.uint32)
    if instruction.place_bits == 0:
        return found
    # tf32's place of 2 is that of its two halves, of 4: 0b0100 is the first, 0b1110 the second.
    pattern = places if instruction.place_bits == 2 else np.where(places, 0b1110, 0b0100)
    shifts = instruction.place_bits * np.arange(kept, dtype=np.uint64)
    rows = (pattern.astype(np.uint64) << shifts).sum(axis=2, dtype=np.uint64)
    low, high = rows[:, :8], rows[:, 8:]
    if instruction.place_bits * kept == 64:
        for lane, bits in enumerate((low, high, low >> 32, high >> 32)):
            found[:, lane::4] = bits & 0xFFFFFFFF
        return found
    found[:, 0::4] = (low & 0xFFFF) | (high << 16)
    found[:, 1::4] = (low >> 16) | (high & 0xFFFF0000)
    return found


def multiply(kernel: Any, instruction: Instruction, a: Any, b: Any, places: Any, c: Any) -> Any:
    """The sums [tiles, rows, 8] of codes a, b and fp32 c."""
    import cupy

    d = cupy.empty(c.shape, cupy.float32)
    given = (np.ascontiguousarray(each).view(np.uint32) for each in (a, b))
    one, two = (cupy.asarray(each) for each in given)
    rest = (cupy.asarray(metadata(places, instruction)), cupy.asarray(c), d)
    kernel((len(c),), (2 * instruction.rows,), (one, two, *rest))
    return d.get()


def measure_ptx(
    rng: np.random.Generator, kind: tuple[str, str], instruction: Instruction, tiles: int
) -> dict[str, Any]:
    """Every draw of one instruction in PTX."""
    format_ = FORMATS[kind[1]]
    kept, height = instruction.stored, instruction.rows
    kernel = compiled(instruction, format_)
    order = rng.random((tiles, height, kept // instruction.kept, instruction.group)).argsort(axis=3)
    places = np.sort(order[..., : instruction.kept], axis=3).reshape(tiles, height, kept)
    places = places.astype(np.uint8)

    sizes = ((height, kept), (8, instruction.depth))
    whole = [rng.integers(-4, 5, (tiles, *size)) for size in sizes]
    start = np.zeros((tiles, height, 8), np.float32)
    found = multiply(kernel, instruction, *(codes(each, format_) for each in whole), places, start)
    where = np.arange(kept) // instruction.kept * instruction.group + places
    picked = np.take_along_axis(whole[1][:, None], where[:, :, None], axis=3)
    assert (np.einsum("tik,tijk->tij", whole[0], picked) == found).all(), f"{kind}: misplaced"

    saved = {}
    for draw in DRAWS:
        a, b, c = drawn(rng, format_, draw, (tiles, height, 8), instruction)
        a, b = codes(a, format_), codes(b, format_)
        with np.errstate(over="ignore"):
            c = c.astype(np.float32)
        arrays = {"a": a, "b": b, "c": c, "d": multiply(kernel, instruction, a, b, places, c)}
        arrays |= {"places": places} if instruction.place_bits else {}
        saved |= {f"{'/'.join(kind)}/{draw}/{name}": each for name, each in arrays.items()}
    return saved


def measure_wgmma(
    rng: np.random.Generator, dot: Any, name: str, depth: int, side: int
) -> dict[str, Any]:
    """Every draw of ``wgmma`` in one format; of the tile, ``side`` rows and columns are kept."""
    import torch

    format_, saved = FORMATS[name], {}
    for draw in DRAWS:
        a, b, c = drawn(rng, format_, draw, (1, SIDE, SIDE), Instruction("wgmma", depth))
        a, b = codes(a, format_), codes(b, format_)
        with np.errstate(over="ignore"):
            c = c.astype(np.float32)
        given = (on_card(a, format_), on_card(b, format_))
        d = torch.empty(c.shape, dtype=torch.float32, device="cuda")
        made = dot[(1,)](*given, torch.tensor(c).cuda(), d, depth, STEP, SIDE, num_warps=4)
        assert "wgmma.mma_async" in made.asm["ptx"], f"{name}: Triton did not take wgmma"
        key = f"wgmma/{name}/{draw}-{depth}"
        arrays = {"a": a, "b": b, "c": c, "d": d.cpu().numpy()}
        saved |= {f"{key}/{array}": each[:, :side] for array, each in arrays.items()}
        for array in "cd":
            saved[f"{key}/{array}"] = saved[f"{key}/{array}"][..., :side]
    return saved


def about() -> dict[str, str]:
    """The card and what compiled for it."""
    import cupy
    import torch
    import triton

    return {
        "device": torch.cuda.get_device_name(),
        "driver_cuda": str(cupy.cuda.runtime.driverGetVersion()),
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "program": "benchmarks/silicon_bits.py",
    }


def loaded_dot() -> Any:
    """The Triton kernel; Triton reads its source from a file."""
    path = Path(tempfile.mkdtemp()) / "silicon_bits_dot.py"
    path.write_text(DOT, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dot


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="Folder to write bits.npz to.")
    parser.add_argument("--tiles", type=int, default=4, help="Tiles of each draw of an mma.")
    parser.add_argument("--side", type=int, default=16, help="Rows and columns kept of a wgmma.")
    given = parser.parse_args()
    rng = np.random.default_rng(2026)
    saved: dict[str, Any] = {"about": np.array(json.dumps(about()))}
    for kind, instruction in MMA.items():
        saved |= measure_ptx(rng, kind, instruction, given.tiles)
        print(*kind, "measured")
    dot = loaded_dot()
    for name in WGMMA:
        for depth in DEPTHS:
            saved |= measure_wgmma(rng, dot, name, depth, given.side)
        print("wgmma", name, "measured")
    for kind, instruction in WGMMA_SP.items():
        saved |= measure_ptx(rng, kind, instruction, given.tiles)
        print(*kind, "measured")
    given.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(given.out / "bits.npz", **saved)


if __name__ == "__main__":
    main()
