"""Sparqsim: a discrete-event simulator of quantized and sparse neural-network accelerators.

What most users need is here; nothing is imported before it is used::

    import sparqsim

    report = sparqsim.run("bitfusion", "digits-cnn/conv2", recipe="w4a8")
    whole = sparqsim.run("eie", "digits-mlp")
    sparqsim.compare("resnet18", ["bitfusion", "ant"])

========================  ========================================================================
``machine``, ``machines``  a machine by name, with its fields; the names there are
``load``, ``Network``      work by name, file or sizes: :mod:`sparqsim.workloads.work`
``recipe``, ``Recipe``     what is done to the numbers first: :mod:`sparqsim.workloads.recipes`
``run``, ``compare``       work on a machine, or on several: reports
``sweep``, ``open_store``  thousands of points: docs/howto/sweep.md
``Report`` ...             what a run says: :mod:`sparqsim.simulator.report`
``Netlist`` ...            actors, channels and resources of one's own: ``simulate`` runs them
``Machine`` ...            what a machine of one's own is made of: docs/howto/add_a_machine.md
========================  ========================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name -> module that has it
_PUBLIC = {
    "Account": "architectures.account",
    "Actor": "simulator.netlist",
    "Channel": "simulator.netlist",
    "ComparisonReport": "simulator.comparison",
    "Computes": "architectures.operands",
    "Conv2d": "workloads.layers",
    "EncodedLayer": "workloads.encoded",
    "EnergyPart": "simulator.report",
    "Figure": "architectures.machine",
    "InputError": "base",
    "LayerTensors": "workloads.tensors",
    "Linear": "workloads.layers",
    "Machine": "architectures.machine",
    "Macs": "simulator.report",
    "MatMul": "workloads.layers",
    "Model": "workloads.layers",
    "Netlist": "simulator.netlist",
    "Network": "workloads.work",
    "NetworkReport": "simulator.report",
    "Pattern": "simulator.netlist",
    "Port": "architectures.account",
    "Program": "architectures.machine",
    "Recipe": "workloads.recipes",
    "Report": "simulator.report",
    "Resource": "simulator.netlist",
    "Store": "architectures.account",
    "TensorRecipe": "workloads.recipes",
    "Timeline": "simulator.timeline",
    "Verification": "simulator.report",
    "compare": "api",
    "load": "workloads.work",
    "machine": "api",
    "machines": "api",
    "open_store": "scripts.sweep.api",
    "recipe": "api",
    "run": "api",
    "simulate": "simulator.engines",
    "sweep": "scripts.sweep.api",
}
__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from sparqsim.api import compare as compare
    from sparqsim.api import machine as machine
    from sparqsim.api import machines as machines
    from sparqsim.api import recipe as recipe
    from sparqsim.api import run as run
    from sparqsim.architectures.account import Account as Account
    from sparqsim.architectures.account import Port as Port
    from sparqsim.architectures.account import Store as Store
    from sparqsim.architectures.machine import Figure as Figure
    from sparqsim.architectures.machine import Machine as Machine
    from sparqsim.architectures.machine import Program as Program
    from sparqsim.architectures.operands import Computes as Computes
    from sparqsim.base import InputError as InputError
    from sparqsim.scripts.sweep.api import open_store as open_store
    from sparqsim.scripts.sweep.api import sweep as sweep
    from sparqsim.simulator.comparison import ComparisonReport as ComparisonReport
    from sparqsim.simulator.engines import simulate as simulate
    from sparqsim.simulator.netlist import Actor as Actor
    from sparqsim.simulator.netlist import Channel as Channel
    from sparqsim.simulator.netlist import Netlist as Netlist
    from sparqsim.simulator.netlist import Pattern as Pattern
    from sparqsim.simulator.netlist import Resource as Resource
    from sparqsim.simulator.report import EnergyPart as EnergyPart
    from sparqsim.simulator.report import Macs as Macs
    from sparqsim.simulator.report import NetworkReport as NetworkReport
    from sparqsim.simulator.report import Report as Report
    from sparqsim.simulator.report import Verification as Verification
    from sparqsim.simulator.timeline import Timeline as Timeline
    from sparqsim.workloads.encoded import EncodedLayer as EncodedLayer
    from sparqsim.workloads.layers import Conv2d as Conv2d
    from sparqsim.workloads.layers import Linear as Linear
    from sparqsim.workloads.layers import MatMul as MatMul
    from sparqsim.workloads.layers import Model as Model
    from sparqsim.workloads.recipes import Recipe as Recipe
    from sparqsim.workloads.recipes import TensorRecipe as TensorRecipe
    from sparqsim.workloads.tensors import LayerTensors as LayerTensors
    from sparqsim.workloads.work import Network as Network
    from sparqsim.workloads.work import load as load


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sparqsim' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"sparqsim.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
