"""The generated pages of the reference: what program, structs and schemas say of themselves.

Each function returns the Markdown of one page. `conf.py` writes them before a build; the pages of
`docs/reference/` include them. Nothing generated is kept in the repository.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import msgspec

TEXTS, COUNTERS = (
    tomllib.loads(Path(__file__).with_name("reference").joinpath(name).read_text(encoding="utf-8"))
    for name in ("fields.toml", "counters.toml")
)
FIELDS = ("key", "type", "default", "what it is")
UNITS = (  # the end of a field's name -> its unit
    ("_gbytes_per_s", "GB/s"),
    ("bytes_per_s", "byte/s"),
    ("macs_per_s", "MAC/s"),
    ("_cycles", "cycles"),
    ("cycles", "cycles"),
    ("seconds", "s"),
    ("_pj", "pJ"),
    ("_js", "J s"),
    ("_bits", "bits"),
    ("_db", "dB"),
    ("_nm", "nm"),
    ("_mm2", "mm2"),
    ("_w", "W"),
)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; pipes and line ends within cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# --------------------------------------------------------------------------------------- commands


def commands() -> str:
    """Every command of the program with its arguments and options, from click itself."""
    from sparqsim.scripts.cli import cli

    context = click.Context(cli, info_name="sparqsim")
    parts = ["## sparqsim\n", _options(cli, context)]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=context), 2)
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {context.command_path}\n"
    arguments = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {arguments}\n```\n"
    yield _prose(command.help or "") + "\n"
    yield _options(command, context)
    if not isinstance(command, click.Group):
        return
    members = {name: command.get_command(context, name) for name in command.list_commands(context)}
    known = {name: each for name, each in members.items() if each is not None}
    shared = _shared(list(known.values()))
    if shared:
        yield f"Options of every `{context.command_path}`:\n"
        yield table(("option", "what it does"), (_option(each, context) for each in shared))
    names = {option.name for option in shared}
    for name, each in known.items():
        own = [option for option in _listed(each) if option.name not in names]
        yield f"{'#' * (depth + 1)} {context.command_path} {name}\n"
        yield _prose(_first(each.help or "")) + "\n"
        if own:
            yield table(("option", "what it does"), (_option(option, context) for option in own))


def _shared(commands: list[click.Command]) -> list[click.Option]:
    """Options that each of the commands has, in the order of the first."""
    told = [{(o.name, o.help) for o in _listed(command)} for command in commands]
    common = set.intersection(*told) if len(told) > 1 else set()
    return [option for option in _listed(commands[0]) if (option.name, option.help) in common]


def _listed(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option) and not each.hidden]


def _options(command: click.Command, context: click.Context) -> str:
    options = _listed(command)
    if not options:
        return ""
    return table(("option", "what it does"), (_option(each, context) for each in options))


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    record = option.get_help_record(context)
    assert record is not None
    return f"`{record[0]}`", _escaped(record[1])


def _first(text: str) -> str:
    return inspect.cleandoc(text).partition("\n\n")[0]


def _prose(text: str) -> str:
    r"""Help as Markdown: a paragraph behind ``\b`` keeps its lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.strip(chr(8)).strip(chr(10))}\n```"
        if "\b" in paragraph
        else _escaped(paragraph)
        for paragraph in paragraphs
    )


def _escaped(text: str) -> str:
    return text.replace("``", "`").replace("<", "&lt;").replace("*", "\\*")


# ---------------------------------------------------------------------------------------- machines


def machines() -> str:
    """Every machine: what it is and leaves out, where it is in the code, datasheet and presets."""
    from sparqsim.architectures import presets
    from sparqsim.architectures.registry import get_machine, machine_names

    parts = []
    for name in machine_names():
        kind = get_machine(name)
        parts += [
            f"## {name}\n",
            f"{kind.title}. In the code: `{kind.__module__}`.\n",
            _plain(_taught(kind)) + "\n",
            table(
                ("what", "value", "basis", "source"),
                (
                    (_escaped(f.name), _escaped(f.value), str(f.basis), _escaped(f.source))
                    for f in kind().datasheet()
                ),
            ),
        ]
        known = [(f"`{each}`", presets.get(each).title) for each in presets.names(name)]
        if known:
            parts.append(table(("preset", "what it is"), known))
    return "\n".join(parts)


def _taught(kind: type) -> str:
    """What the module of a machine, or the package that it is in, says of it: the longer one."""
    module = sys.modules[kind.__module__]
    package = sys.modules[kind.__module__.rpartition(".")[0]]
    return max((inspect.cleandoc(each.__doc__ or "") for each in (module, package)), key=len)


# ----------------------------------------------------------------------------------------- structs


def struct_rows(kind: type) -> list[tuple[str, str, str, str]]:
    """(field, type, default, what it is) of a struct, the last from its docstring."""
    told = TEXTS.get(kind.__name__, {}) | _attributes(kind)
    rows = []
    for field in msgspec.structs.fields(kind):
        default = "required"
        if field.default is not msgspec.NODEFAULT:
            default = f"`{_shown(field.default)}`"
        elif field.default_factory is not msgspec.NODEFAULT:
            default = f"`{_shown(field.default_factory())}`"
        rows.append((f"`{field.name}`", _type(field.type), default, told.get(field.name, "")))
    return rows


def _shown(value: Any) -> str:
    return f"{type(value).__name__}()" if isinstance(value, msgspec.Struct) else repr(value)


def _type(kind: Any) -> str:
    text = getattr(kind, "__name__", None) if isinstance(kind, type) else None
    if text is None or getattr(kind, "__args__", None):
        text = re.sub(r"(?:\w+\.)+(\w+)", r"\1", str(kind).replace("NoneType", "None"))
    return f"`{text}`"


def _attributes(kind: type) -> dict[str, str]:
    """The fields that a docstring's section Attributes explains."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line.startswith("    "):
            for name in names:
                found[name] = f"{found[name]} {line.strip()}".strip()
        elif head := re.fullmatch(r"(\w+(?:, \w+)*)(?: : .*)?", line):
            names = head[1].split(", ")
            found |= dict.fromkeys(names, "")
        elif re.fullmatch(r"-+", line):
            break
    return {name: _escaped(_plain(text)) for name, text in found.items()}


def recipes() -> str:
    """The keys of a recipe, from the structs that read it."""
    from sparqsim.workloads import recipes as module

    parts = []
    for title, kind in (
        ("The file", module.Recipe),
        ("A class of tensors: `[weights]`, `[activations]`, `[embeddings]`", module.TensorRecipe),
        ("`[[override]]`", module.Override),
    ):
        parts += [f"## {title}\n", _intro(kind), table(FIELDS, struct_rows(kind))]
    rows = [(f"`{name}`", _escaped(module.get(name).description)) for name in module.named()]
    parts += ["## Named recipes\n", table(("name", "what it does"), rows)]
    return "\n".join(parts)


def _intro(kind: type) -> str:
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------")[0]
    return _escaped(_plain(text)).strip() + "\n"


def _plain(text: str) -> str:
    """A docstring as Markdown: roles (``:func:`name` ``) and double backticks become code."""
    return re.sub(r":\w+:`[.~]*([^`]+)`", r"`\1`", text).replace("``", "`")


def report() -> str:
    """Every record of a report with its fields and their units."""
    from sparqsim.simulator.comparison import ComparisonReport
    from sparqsim.simulator.report import NetworkReport, Report

    parts = []
    for title, root in (
        ("A layer", Report),
        ("A network", NetworkReport),
        ("A comparison", ComparisonReport),
    ):
        parts.append(f"## {title}\n")
        for kind in reached(root):
            if f"### {kind.__name__}\n" in parts:
                continue
            parts += [f"### {kind.__name__}\n", _intro(kind)]
            rows = [(name, held, _unit(name), told) for name, held, _, told in struct_rows(kind)]
            parts.append(table(("field", "type", "unit", "what it is"), rows))
    parts.append("## Counters\n")
    for machines, texts in COUNTERS.items():
        rows = [(f"`{name}`", _unit(name), told) for name, told in texts.items()]
        parts += [f"### Of {machines}\n", table(("counter", "unit", "what it is"), rows)]
    return "\n".join(parts)


def reached(root: type) -> list[type]:
    """A record and the records that it holds, each once."""
    found = [root]
    for kind in found:
        for hint in get_type_hints(kind).values():
            found += [each for each in _records(hint) if each not in found]
    return found


def _records(hint: Any) -> list[type]:
    """The records within a type, such as ``list[Row]``."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [record for inner in get_args(hint) for record in _records(inner)]


def _unit(name: str) -> str:
    bare = name.strip("`")
    return next((unit for end, unit in UNITS if bare.endswith(end)), "")


# ------------------------------------------------------------------------------------- sweep files


def sweep_file() -> str:
    """The tables and keys of a sweep's file, from its JSON schema."""
    from sparqsim.scripts.sweep.file import SweepFile

    components = msgspec.json.schema(SweepFile)["$defs"]
    names = {"SweepFile": "The file", "Block": "`[[block]]`", "Search": "`[search]`",
             "Figure": "`[[figure]]`", "Range": "A range", "Sample": "`sample`"}  # fmt: skip
    parts = []
    for name in [*names, *(name for name in components if name not in names)]:
        schema = components[name]
        parts += [f"## {names.get(name, name)}\n", _escaped(schema.get("description", "")) + "\n"]
        required = schema.get("required", [])
        texts = TEXTS.get(name, {})
        parts.append(
            table(
                FIELDS,
                (
                    (
                        f"`{key}`",
                        _schema_type(value),
                        "required" if key in required else _default(value),
                        texts.get(key, ""),
                    )
                    for key, value in schema.get("properties", {}).items()
                ),
            )
        )
    return "\n".join(parts)


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None or isinstance(value, dict) else f"`{value!r}`"


def _schema_type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        if any(each.get("$ref") == "#/$defs/Range" for each in schema["anyOf"]):
            return "a value, a list of values, or a range"
        kinds = [_schema_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_schema_type(schema.get('items', {}))}"
    if kind == "object":
        return "table"
    limits = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤"))
              if key in schema]  # fmt: skip
    return " ".join([kind, *limits])


# ------------------------------------------------------------------------------------- public names


GROUPS = {
    "Run work": ("run", "compare", "load", "machine", "machines", "recipe", "sweep", "open_store"),
    "Work and recipes": ("Network", "Model", "Linear", "Conv2d", "MatMul", "LayerTensors",
                         "EncodedLayer", "Recipe", "TensorRecipe"),
    "Results": ("Report", "NetworkReport", "ComparisonReport", "Macs", "EnergyPart",
                "Verification"),
    "Netlists": ("simulate", "Netlist", "Actor", "Channel", "Pattern", "Resource", "Timeline"),
    "A machine of one's own": ("Machine", "Program", "Computes", "Figure", "Account", "Store",
                               "Port", "InputError"),
}  # fmt: skip


def public_names() -> str:
    """Every public name of `sparqsim`, from its docstring."""
    import sparqsim

    grouped = [name for names in GROUPS.values() for name in names]
    rest = [name for name in sparqsim.__all__ if name not in grouped]
    parts = []
    for title, names in (GROUPS | ({"More": tuple(rest)} if rest else {})).items():
        parts.append(f"## {title}\n\n```{{eval-rst}}\n")
        for name in names:
            parts.append(_directive(name, getattr(sparqsim, name)))
        parts.append("```\n")
    return "\n".join(parts)


def _directive(name: str, what: object) -> str:
    if not isinstance(what, type):
        return f".. autofunction:: sparqsim.{name}\n"
    if issubclass(what, Exception):
        return f".. autoexception:: sparqsim.{name}\n"
    return f".. autoclass:: sparqsim.{name}\n   :members:\n"


PAGES = {
    "commands": commands,
    "machines": machines,
    "recipes": recipes,
    "report": report,
    "sweep_file": sweep_file,
    "python": public_names,
}


def write(folder: Path) -> None:
    """Write every page, leaving alone those that did not change."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / f"{name}.md", page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
