"""Command lines that people and attackers might type: every command and option, hostile values.

:func:`command_line` draws one from a random generator: a command that runs as it stands, some of
its options with values of the right kind, of the wrong kind and at extremes, and sometimes an
option or an argument too many. :func:`bad_files` writes files that are not what their names say.
"""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import click
import numpy as np

from sparqsim.architectures.registry import machine_names
from sparqsim.scripts.cli import cli

WHOLE = ["-1", "0", "1", "2", "3", "64", "2147483648", str(2**40), str(2**62), str(2**63),
         "9" * 30, "9" * 5000, "1e3", "0x10", "", "nan", "１２", " 5", "1_000", "٣"]  # fmt: skip
REAL = ["nan", "inf", "-inf", "1e308", "5e-324", "-0.0", "-1", "0.5", "1", "", "1,5", "1e999",
        "0x1p3", "half"]  # fmt: skip
TEXT = ["", "-", "--", " ", "a" * 300, "a" * 5000, "x\0y", "\x1b[31mred", "\u202egnp", "[/bold]",
        "[red]x", "%s%n", "$HOME", "~", "..", "../../etc/passwd", "'; DROP TABLE", "\ud800",
        "--help", ":smile:", "name with space", "größe", "x=1", "{}", "\\", "*", "?"]  # fmt: skip
FILES = ["/dev/zero", "/dev/null", "/dev/full", "/nonexistent/x.json", "loop", "folder", "folder/",
         "locked/x.json", "/proc/self/mem", "x" * 256 + ".json"]  # fmt: skip
ENDINGS = ["toml", "npz", "onnx", "csv", "yaml", "gguf", "safetensors", "json", "py", "pt2"]
GOOD = ["gemm:4x4x4", "gemm:1x1x1", "gemm:17x33x5", "matmul:2x3x4,batch=2", "digits-mlp/fc3",
        "conv:4x8x8,4x3x3,pad=1", "conv:6x9x5,4x3x1,stride=2,groups=2", "digits-mlp"]  # fmt: skip
WORKS = [
    "gemm:0x4x4", "gemm:4x4", "gemm:-1x4x4", "gemm:99999999999x1x1", "gemm:4x4x4x4", "gemm:",
    "gemm:1e3x4x4", "gemm:4x4x4,batch=0", "matmul:2x2x2,batch=-1", "matmul:2x2x2,batch=" + "9" * 40,
    "conv:1x4x4,1x5x5", "conv:1x4x4,1x3x3,stride=0", "conv:1x4x4,1x3x3,pad=99999999999",
    "conv:4x4x4,4x3x3,groups=3", "conv:1x4x4,1x3x3,dilation=2147483648", "conv:x,y", "conv:",
    "digits-mlp/nope", "resnet50/conv1/x", "digits-cnn/", "/", "//", "gemm:4x4x4/x", "nope",
    "llama_7b/lm_head", "resnet-50", "digits_mlp", "GEMM:4x4x4", "model.onnx/", "bad0.onnx/x",
]  # fmt: skip
EXPRESSIONS = ["cycles > 1", "1/0", "9**9**9", "(" * 500, "__import__('os')", "a.b.c", "x;y", "[]"]
OPTION_NAMES = ["--nope", "--", "-x", "--rows", "--json", "--help", "--seed=-1", "--=", "-"]


def bad_files(folder: Path, rng: random.Random) -> None:
    """Write files of every ending that are empty, cut, random, nested or lie of their size."""
    header = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (2**33, 2**20)}
    np.lib.format.write_array_header_1_0(header, shape)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("bomb.npy", header.getvalue() + b"\0" * 10**7)
    contents = [
        b"", b"\0" * 64, rng.randbytes(200), b"\xff\xfe" + "ä".encode("utf-16-le") * 20,
        b"[" * 3000, b'{"a": ' * 3000, b"a = " + b"9" * 5000, packed.getvalue(),
        b"\x80\x04\x95" + rng.randbytes(40), b"GGUF\x03\0\0\0" + b"\xff" * 16,
        (2**60).to_bytes(8, "little") + b"{}", b"Layer,H,W\n" + b"conv,-1,nan\n" * 3,
        b"problem:\n  shape: &a [*a, *a]\n", b"raise SystemExit(3)\n", header.getvalue(),
        b'[base]\nmachine = "eie"\nwork = "gemm:4x4x4"\n[grid]\nqueue_slots = [-1, 1e308, "x"]\n',
        b'name = "x"\n[weights]\nformat = "int99"\n', b"rows = 1e308\nclock_hz = nan\n",
        b'name = "x"\n[weights]\nformat = "int4"\ngranularity = "group:99999999999999999999"\n',
        b'name = "x"\n[activations]\nformat = "int8"\nprune = "top:0"\n',
    ]  # fmt: skip
    for number, content in enumerate(contents):
        for ending in ENDINGS:
            (folder / f"bad{number}.{ending}").write_bytes(content)
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    (folder / "locked").mkdir(mode=0o000)


BAD = 20  # kinds of bad files


def _work(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(GOOD)
    return rng.choice(WORKS) if rng.random() < 0.7 else _file(rng)


def _file(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return f"bad{rng.randrange(BAD)}.{rng.choice(ENDINGS)}"
    return rng.choice(FILES + TEXT)


def _value(option: click.Parameter, rng: random.Random) -> str:
    """A value for an option; now and then of another kind."""
    kind = option.type
    if rng.random() < 0.1:
        return rng.choice(WHOLE + REAL + TEXT + FILES)
    plain = rng.random() < 0.6
    if isinstance(kind, click.Choice):
        return str(rng.choice([*kind.choices] if plain else TEXT))
    if isinstance(kind, click.types.FloatParamType | click.FloatRange):
        return rng.choice(["0.3", "1", "7.5", "300", "1e6"] if plain else REAL)
    if isinstance(kind, click.types.IntParamType | click.IntRange):
        return rng.choice(["1", "2", "3", "8", "64", "100"] if plain else WHOLE)
    names = option.name or ""
    if option.metavar and "EXPR" in option.metavar:
        return rng.choice(EXPRESSIONS)
    if option.metavar and any(word in option.metavar for word in ("FILE", "DIR", "NAME")):
        ours = ["int8", "w4a8", "out.json", "out.csv", "out.html", "out.png", "out", "cycles"]
        return rng.choice(ours) if plain else _file(rng)
    if "machines" in names:
        return rng.choice(["eie", "eie,bitfusion", "eie,eie", "eie:", ":", ",", "eie:nope", "x.py"])
    return rng.choice(TEXT + WHOLE + REAL)


def _arguments(name: str, rng: random.Random) -> list[str]:
    """What a command needs to run at all."""
    if name == "run":
        return [_work(rng)]
    if name == "compare":
        return [*(_work(rng) for _ in range(rng.randrange(1, 3))), "--machines", "bitfusion,ant"]
    if name in ("compress", "train"):
        return [rng.choice(["digits-mlp", _work(rng)]), "--recipe",
                rng.choice(["int8", "w4a8", _file(rng)])]  # fmt: skip
    if name in ("sweep", "scenarios"):
        return [_file(rng)]  # never one that is there: it would be run whole
    if name == "diff":
        return [_file(rng), rng.choice(["report.json", _file(rng)])]
    if name == "animate":
        return [_work(rng), "-o", "out.html"]
    if name == "explore":
        return ["out.html", _work(rng), "--machines", "bitfusion,ant"]
    if name == "grade":
        return [rng.choice(["eie", "machine", _file(rng)]), _file(rng), "--student", "ada"]
    if name == "plot":
        return [rng.choice(["folder", _file(rng)])]
    if name == "validate":
        return [rng.choice(["nope", *(text for text in TEXT if text != "--")])]
    found = {"models": WORKS, "formats": ["int4", "flint4", "float_e99_200", "int-1", *TEXT],
             "machines": [*machine_names(), *TEXT]}  # fmt: skip
    return [rng.choice([*found[name], _file(rng)])]


def command_line(rng: random.Random) -> list[str]:
    """Draw a command line; the same generator draws the same."""
    name = rng.choice([*cli.table, *["run"] * 6, *["compress"] * 2])
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    line = [name]
    if name in ("run", "animate"):
        assert isinstance(command, click.Group)
        machine = rng.choice(machine_names())
        line.append(machine if rng.random() < 0.95 else _file(rng))
        command = command.get_command(context, machine)
        assert command is not None
    line += _arguments(name, rng)
    options = [each for each in command.params if isinstance(each, click.Option)]
    options = [each for each in options if each.name not in ("jobs", "workers", "scheduler",
                                                              "local_cluster")]  # fmt: skip
    for option in rng.sample(options, min(rng.choice([0, 1, 1, 2, 3]), len(options))):
        line.append(rng.choice([*option.opts, *option.secondary_opts]))
        if not option.is_flag:
            line.append(_value(option, rng))
    if rng.random() < 0.05:
        line.insert(rng.randrange(len(line) + 1), rng.choice(OPTION_NAMES + TEXT))
    if rng.random() < 0.03:
        line = ["--memory-limit", rng.choice(["1kB", "1MB", "", "-1GB", "nan"]), *line]
    return line
