"""Are presets whole, sourced and strictly read, and does a datasheet show their sources?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sparqsim.architectures import presets
from sparqsim.architectures.heatvit import HeatViT
from sparqsim.architectures.registry import get_machine
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.base import InputError

LIKE = 'machine = "sparse-tensor-core"\ntitle = "mine"\nlike = "h100"\n'


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", presets.names())
def test_every_number_of_a_preset_has_a_source(name: str) -> None:
    """All fields of the machine are given, each with its basis and source; the datasheet shows the
    values of the configuration and those sources."""
    preset = presets.get(name)
    machine = presets.load(name)
    assert type(machine) is get_machine(machine.name)
    assert tuple(preset.fields) == machine.__struct_fields__
    shown = {figure.name: figure for figure in machine.datasheet()}
    assert shown["preset"].value == name and preset.title
    for field, told in preset.fields.items():
        assert told.source and shown[field].source == told.source
        assert shown[field].basis == told.basis
        if not isinstance(told.value, bool):
            assert float(shown[field].value) == pytest.approx(getattr(machine, field), rel=1e-5)


def test_the_default_configuration_is_a_preset() -> None:
    """Numbers of the class and of ``a100-40gb`` are the same."""
    assert presets.load("a100-40gb") == SparseTensorCore()


def test_presets_are_listed_by_machine() -> None:
    """All of them, those of one machine, and none of a machine that has none."""
    mine = presets.names("sparse-tensor-core")
    assert {"a100-40gb", "a100-80gb", "h100", "orin", "any-nm", "rtx3090"} == set(mine)
    assert set(mine) <= set(presets.names())
    assert presets.names("eie") == () and presets.figures(HeatViT()) == []


def test_what_is_set_by_hand_says_so() -> None:
    """A field that differs from the nearest preset is told as given, beside the preset's value."""
    machine = presets.load("h100")
    assert isinstance(machine, SparseTensorCore)
    changed = msgspec.structs.replace(machine, l2_mib=60.0)
    shown = {figure.name: figure for figure in changed.datasheet()}
    assert "preset" not in shown and shown["l2_mib"].value == "60"
    assert shown["l2_mib"].source == "given; h100 has 50"
    assert shown["sms"].source == "H100 white paper, SXM5"
    assert machine.area() is not None and changed.area() is None


def test_a_file_is_a_preset_too(tmp_path: Path) -> None:
    """It is like one that ships, and gives what differs; a whole number may stand for a real."""
    path = written(
        tmp_path,
        LIKE + '[fields]\nl2_mib = { value = 60, basis = "assumed", source = "a wish" }\n',
    )
    machine = presets.load(path)
    assert machine == msgspec.structs.replace(presets.load("h100"), l2_mib=60.0)
    assert presets.get(path).fields["l2_mib"].source == "a wish"


def test_a_preset_of_another_machine_is_refused() -> None:
    """The message names both machines, and what the wanted one has."""
    assert presets.load("h100", "sparse-tensor-core") == presets.load("h100")
    with pytest.raises(InputError, match="of sparse-tensor-core, not of eie; eie has none"):
        presets.load("h100", "eie")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("machine = ", "must be a preset"),
        ('machine = "eie"', "missing required field `title`"),
        ('machine = "v100"\ntitle = "x"', "no machine 'v100'"),
        (LIKE + "speed = 3", "unknown field `speed`"),
        (LIKE.replace("h100", "h200"), "no preset to be like called 'h200'; did you mean h100"),
        (LIKE.replace("sparse-tensor-core", "eie"), "is of eie, but h100 of sparse-tensor-core"),
        ('machine = "sparse-tensor-core"\ntitle = "x"', "must give every field .* it lacks sms,"),
        (LIKE + "[fields]\nsms = 3", r"Expected `object`, got `int`.*fields"),
        (LIKE + "[fields]\nsms = { value = 3 }", "missing required field `basis`"),
        (
            LIKE + '[fields]\nsms = { value = 3, basis = "guessed", source = "x" }',
            "Invalid enum value 'guessed'",
        ),
        (
            LIKE + '[fields]\nsms = { value = 3, basis = "assumed", source = "" }',
            "fields.sms must have a source",
        ),
        (
            LIKE + '[fields]\nsm = { value = 3, basis = "assumed", source = "x" }',
            "has no field 'sm'; did you mean sms",
        ),
        (
            LIKE + '[fields]\nsms = { value = "many", basis = "assumed", source = "x" }',
            "Expected `int`, got `str`.*sms",
        ),
        (
            LIKE + '[fields]\nsms = { value = 0, basis = "assumed", source = "x" }',
            "sms must be a whole number from 1 to 16,777,216, got 0",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file, the key and what is wrong."""
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=words) as caught:
        presets.load(path)
    assert "mine.toml" in str(caught.value)


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    """Unknown presets list near ones; a file that is not there is named."""
    with pytest.raises(InputError, match="there is no preset 'a100'; did you mean a100-"):
        presets.load("a100")
    with pytest.raises(InputError, match=r"cannot read a preset .*none\.toml"):
        presets.load(str(tmp_path / "none.toml"))
