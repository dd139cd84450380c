"""Is every registered machine a machine? Each enrols itself here by its row in the registry."""

from __future__ import annotations

import msgspec
import pytest

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.base import InputError
from sparqsim.scripts.run import field_help, machine_options
from sparqsim.scripts.validate import load, validations
from sparqsim.simulator.energy.tables import Basis


@pytest.fixture(params=machine_names())
def name(request: pytest.FixtureRequest) -> str:
    """Every name in the registry."""
    return str(request.param)


def test_it_knows_its_name(name: str) -> None:
    """The name in a report is that of the registry; the title says what it is."""
    machine = get_machine(name)
    assert issubclass(machine, Machine) and machine.name == name and len(machine.title) > 10


def test_its_configuration_is_frozen_strict_and_hashable(name: str) -> None:
    """Fields cannot change, unknown ones are refused, and JSON gives the configuration back."""
    machine = get_machine(name)
    made = machine()
    field = msgspec.structs.fields(machine)[0].name
    with pytest.raises(AttributeError):
        setattr(made, field, 1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"no_such_field": 1}, machine)
    assert msgspec.json.decode(msgspec.json.encode(made), type=machine) == made
    assert hash(made) == hash(machine())


def test_every_field_is_an_option_with_help(name: str) -> None:
    """Each field of the configuration is documented, and so an option of the command."""
    machine = get_machine(name)
    fields = [field.name for field in msgspec.structs.fields(machine)]
    assert set(fields) <= set(field_help(machine))
    assert [option.name for option in machine_options(machine)] == fields


def test_its_datasheet_has_sources(name: str) -> None:
    """Every figure of the datasheet has a value, a basis and a source."""
    figures = get_machine(name)().datasheet()
    assert len(figures) >= 3
    for figure in figures:
        assert figure.name and figure.value and figure.source and isinstance(figure.basis, Basis)


def test_validations_load() -> None:
    """Every validation that is named can be imported and has --json."""
    for each in validations():
        command = load(each)
        assert any("--json" in parameter.opts for parameter in command.params)
    with pytest.raises(InputError, match="there is"):
        load("nothing")
