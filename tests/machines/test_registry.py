"""Can a machine come from outside: a file, or an installed package's entry point?"""

from __future__ import annotations

from pathlib import Path

import pytest

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.registry import file_of, get_machine, installed
from sparqsim.base import InputError

ONE = """
from sparqsim.architectures.arrays.bitfusion import BitFusion

class Mine(BitFusion, frozen=True, kw_only=True):
    name = "mine"
    title = "Bit Fusion with a field of its own"
    extra: int = 3
"""
TWO = (
    ONE
    + """
class Other(Mine, frozen=True, kw_only=True):
    name = "other"
"""
)
HOLLOW = """
from sparqsim.architectures.machine import Machine
class Hollow(Machine, frozen=True, kw_only=True):
    name = "hollow"
    title = "Says nothing"
"""


def test_a_file_is_a_machine(tmp_path: Path) -> None:
    """Its one subclass of Machine; imported ones do not count; loaded once."""
    file = tmp_path / "my machine.py"
    file.write_text(ONE)
    machine = get_machine(str(file))
    assert machine.name == "mine" and machine().extra == 3  # type: ignore[attr-defined]
    assert issubclass(machine, BitFusion) and get_machine(str(file)) is machine
    assert file_of(machine) == str(file)
    assert file_of(BitFusion) is None


def test_a_file_with_several_says_which(tmp_path: Path) -> None:
    """MACHINE names the class."""
    file = tmp_path / "two.py"
    file.write_text(TWO)
    with pytest.raises(InputError, match="one subclass of Machine, got Mine, Other"):
        get_machine(str(file))
    chosen = tmp_path / "chosen.py"
    chosen.write_text(TWO + "\nMACHINE = Other\n")
    assert get_machine(str(chosen)).name == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "one subclass of Machine, got none"),
        ("def broken(", "line 1"),
        ("import no_such_module_at_all", "line 1 cannot be loaded: ModuleNotFoundError"),
        ("x = 1\n\nraise ValueError('two\\nlines')", "line 3 cannot be loaded: ValueError: two l"),
        ("MACHINE = 3", "MACHINE in .* must be a subclass of Machine, got 3"),
        (ONE.replace('name = "mine"', 'name = ""'), "name and its title"),
        (HOLLOW, r"the class Hollow must define computes\(\)"),
        (HOLLOW + "    computes = print\n", r"the class Hollow must define lower\(\)"),
        (ONE.replace("extra: int", "extra: nothing"), "NameError"),
    ],
)
def test_a_broken_file_is_one_message(text: str, message: str, tmp_path: Path) -> None:
    """What is wrong and where, in a line."""
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        machine = get_machine(str(file))
        machine()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    """A file that is not there; a name that is not there, with what is."""
    with pytest.raises(InputError, match="no machine file"):
        get_machine(str(tmp_path / "absent.py"))
    with pytest.raises(InputError, match=r"'eei'; there is eie, .*my_machine.py"):
        get_machine("eei")


def offer(folder: Path, *lines: str) -> None:
    """Lay an installed package with entry points into a folder of the path."""
    info = folder / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[sparqsim.machines]", *lines]) + "\n")
    (folder / "offered_machine.py").write_text(ONE)


def test_entry_points_are_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package offers machines by name; one of the table is not replaced."""
    offer(
        tmp_path,
        "my-machine = offered_machine:Mine",
        "gone = offered_machine:Gone",
        "eie = offered_machine:Mine",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(installed()) == ["gone", "my-machine"]
    assert get_machine("my-machine").name == "mine"
    assert get_machine("eie").name == "eie"
    with pytest.raises(InputError, match=r"entry point 'gone'.* cannot be loaded: AttributeError"):
        get_machine("gone")
    with pytest.raises(InputError, match="my-machine"):
        get_machine("nothing")
