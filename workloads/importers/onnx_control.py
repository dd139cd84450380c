"""Control flow of an ONNX graph whose course is known: written out, so that nodes are left alone.

An ``If`` is replaced by the branch that is taken, where that follows from sizes, constants or the
value of an input that the user gives, and by either where both are equal. The body of a ``Loop`` or
``Scan`` whose count is known is written out once and marked to run that often: counts and shapes
are exact, but such a network is counted, not run. Whatever else depends on data is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
MOST_STEPS = 2**20  # assumed: no network of today takes so many
Shape = tuple[int, ...]


def bodies(node: Any) -> Iterator[Any]:
    """The graphs within a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: Any) -> set[str]:
    """The values that a node reads, those that graphs within it take from outside included."""
    found = {name for name in node.input if name}
    for body in bodies(node):
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        own |= {name for each in body.node for name in each.output}
        inner = {name for each in body.node for name in reads(each)}
        found |= (inner | {value.name for value in body.output}) - own
    return found


class Unfolding:
    """Writes out control flow in a graph.

    Parameters
    ----------
    graph : GraphProto
        It is changed.
    opset : int
    known : mapping of str to array
        Values that are known without running anything.
    shapes : mapping of str to shape
    repeats : dict of str to int
        How often nodes run, by the values that they make; those of loops are added.

    Attributes
    ----------
    counted : list of str
        What cannot be run afterwards, as the nodes' names.
    carried : list of (name, name)
        Values at the start and at the end of a step, which must be of one shape.
    """

    def __init__(
        self,
        graph: Any,
        opset: int,
        known: Mapping[str, NDArray[Any]],
        shapes: Mapping[str, Shape],
        repeats: dict[str, int],
    ) -> None:
        self.graph, self.opset, self.known, self.shapes = graph, opset, known, shapes
        self.repeats = repeats
        self.counted: list[str] = []
        self.carried: list[tuple[str, str]] = []
        self.taken = {value.name for value in graph.input}
        self.taken |= {tensor.name for tensor in graph.initializer}
        self.taken |= {name for node in graph.node for name in node.output}

    def run(self) -> bool:
        """Replace every node whose course is known; say whether there was one."""
        nodes: list[Any] = []
        changed = False
        for node in self.graph.node:
            made = self._written_out(node) if node.op_type in CONTROL_FLOW else None
            changed |= made is not None
            nodes += [node] if made is None else made
        if changed:
            copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
            del self.graph.node[:]
            self.graph.node.extend(copies)
        return changed

    def _written_out(self, node: Any) -> list[Any] | None:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "If":
            return self._if(node, attributes)
        return (
            self._loop(node, attributes)
            if node.op_type == "Loop"
            else (self._scan(node, attributes))
        )

    def _if(self, node: Any, attributes: dict[str, Any]) -> list[Any] | None:
        condition = self.known.get(node.input[0]) if node.input else None
        then, other = (attributes.get(f"{name}_branch") for name in ("then", "else"))
        if then is None or other is None:
            return None
        if condition is not None and condition.size == 1:
            return self._inlined(node, (then if condition.reshape(-1)[0] else other).g, {})
        if _form(then.g, values=True) == _form(other.g, values=True):
            return self._inlined(node, then.g, {})
        if _form(then.g, values=False) == _form(other.g, values=False):
            self.counted.append(node.name or node.output[0])
            return self._inlined(node, then.g, {})
        return None

    def _loop(self, node: Any, attributes: dict[str, Any]) -> list[Any] | None:
        count = self.known.get(node.input[0]) if node.input and node.input[0] else None
        go = node.input[1] if len(node.input) > 1 else ""
        if "body" not in attributes or count is None or count.size != 1:
            return None
        body, steps = attributes["body"].g, int(count.reshape(-1)[0])
        state = list(node.input[2:])
        if len(body.input) != len(state) + 2 or not body.output or len(body.output) <= len(state):
            return None
        goes_on = not go or (go in self.known and bool(self.known[go].reshape(-1)[0]))
        if not goes_on or not _always(body) or not 1 <= steps <= MOST_STEPS:
            return None
        first = self._constant(f"{node.output[0]}@step", np.array(0, np.int64))
        true = self._constant(f"{node.output[0]}@on", np.array(True))
        given = dict(zip((value.name for value in body.input), (first, true, *state), strict=True))
        ends = [value.name for value in body.output][1:]
        return self._stepped(node, body, given, steps, ends, len(state), [0] * len(ends))

    def _scan(self, node: Any, attributes: dict[str, Any]) -> list[Any] | None:
        if not {"body", "num_scan_inputs"} <= attributes.keys() or self.opset < 9:
            return None
        body, scanned = attributes["body"].g, attributes["num_scan_inputs"].i
        states = len(node.input) - scanned
        if states < 0 or scanned < 1 or len(body.input) != len(node.input):
            return None
        axes = _axes(attributes, "scan_input_axes", scanned)
        before: list[Any] = []
        given, steps = {}, 0
        for place, (value, name) in enumerate(zip(body.input, node.input, strict=True)):
            given[value.name] = name
            if place < states:
                continue
            shape, axis = self.shapes.get(name), axes[place - states]
            if shape is None or not -len(shape) <= axis < len(shape):
                return None
            steps = shape[axis]
            given[value.name] = f"{node.output[0]}@{place}"
            first = self._constant(f"{node.output[0]}@first{place}", np.array(0, np.int64))
            before.append(_node("Gather", [name, first], given[value.name], axis=axis))
        if not 1 <= steps <= MOST_STEPS or len(body.output) < states:
            return None
        ends = [value.name for value in body.output]
        outer = _axes(attributes, "scan_output_axes", len(ends) - states)
        made = self._stepped(node, body, given, steps, ends, states, [0] * states + outer)
        return before + made

    def _stepped(
        self,
        node: Any,
        body: Any,
        given: dict[str, str],
        steps: int,
        ends: list[str],
        states: int,
        axes: list[int],
    ) -> list[Any]:
        """A body once, to run ``steps`` times; what each step adds is there that often."""
        self.counted.append(node.name or node.output[0])
        inner = [f"{name}@end" for name in node.output]
        named = type(node)()
        named.CopyFrom(node)
        named.output[:] = [name if place < states else inner[place]
                           for place, name in enumerate(node.output)]  # fmt: skip
        times = self.repeats.get(node.output[0], 1)
        nodes = self._inlined(named, body, given, ends)
        for each in nodes:
            self.repeats |= dict.fromkeys(each.output, times * steps)
        states_in = list(node.input[2:]) if node.op_type == "Loop" else list(node.input[:states])
        self.carried += [
            (a, b) for a, b in zip(states_in, node.output[:states], strict=False) if a and b
        ]
        zeros = self._constant(f"{node.output[0]}@steps", np.zeros(steps, np.int64))
        for place, name in enumerate(node.output):
            if place >= states and name:
                axis, single = axes[place], f"{name}@single"
                nodes.append(self._unsqueezed(inner[place], single, axis))
                nodes.append(_node("Gather", [single, zeros], name, axis=axis))
        return nodes

    def _unsqueezed(self, value: str, output: str, axis: int) -> Any:
        if self.opset < 13:
            return _node("Unsqueeze", [value], output, axes=[axis])
        axes = self._constant(f"{output}@axes", np.array([axis], np.int64))
        return _node("Unsqueeze", [value, axes], output)

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self.taken:
            self.taken.add(name)
            self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _inlined(
        self, node: Any, body: Any, given: Mapping[str, str], ends: list[str] | None = None
    ) -> list[Any]:
        """The nodes of a body that make the outputs of ``node``; names already taken change."""
        names = dict(given)
        own = [tensor.name for tensor in body.initializer]
        own += [name for each in body.node for name in each.output if name]
        for name in own:
            names[name] = self._free(name, node)
        for tensor in body.initializer:
            copy = self.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = names[tensor.name]
        nodes = []
        for each in body.node:
            copy = type(each).FromString(each.SerializeToString())
            _rename(copy, names)
            nodes.append(copy)
        times = self.repeats.get(node.output[0], 1)
        ends = [value.name for value in body.output] if ends is None else ends
        for end, output in zip(ends, node.output, strict=False):
            if output:
                nodes.append(_node("Identity", [names.get(end, end)], output))
        if times > 1:
            self.repeats |= {name: times for each in nodes for name in each.output}
        return nodes

    def _free(self, name: str, node: Any) -> str:
        wanted, number = name, 1
        while wanted in self.taken:
            number += 1
            wanted = f"{node.name or node.output[0]}/{name}#{number}"
        self.taken.add(wanted)
        return wanted


def _node(operation: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operation, inputs, [output], **attributes)


def _rename(node: Any, names: Mapping[str, str]) -> None:
    """Rename what a node reads and makes, within its graphs as well."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for body in bodies(node):
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        own |= {name for each in body.node for name in each.output}
        outer = {old: new for old, new in names.items() if old not in own}
        for each in body.node:
            _rename(each, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


def _always(body: Any) -> bool:
    """Whether a loop's body never ends it."""
    end, start = body.output[0].name, body.input[1].name
    for node in reversed(body.node):
        if end in node.output and node.op_type == "Identity" and node.input:
            end = node.input[0]
        elif end in node.output and node.op_type == "Constant":
            from onnx import numpy_helper

            values = [numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"]
            return bool(values) and bool(values[0].all())
    return bool(end == start)


def _axes(attributes: Mapping[str, Any], name: str, count: int) -> list[int]:
    given = list(attributes[name].ints) if name in attributes else []
    return given if len(given) == count else [0] * count


def _form(body: Any, values: bool) -> list[Any]:
    """What a graph does, whatever its names: equal for equal graphs.

    Without ``values`` constants are equal where types and shapes are.
    """
    names: dict[str, int] = {}

    def known(name: str) -> Any:
        return names.get(name, name)

    def tensor(each: Any) -> Any:
        copy = type(each).FromString(each.SerializeToString())
        copy.ClearField("name")
        whole = values or each.data_type in (6, 7)  # sizes and axes decide shapes
        return copy.SerializeToString() if whole else (each.data_type, tuple(each.dims))

    def written(attributes: Iterable[Any]) -> list[Any]:
        found = []
        for each in attributes:
            if each.HasField("t"):
                found.append((each.name, tensor(each.t)))
            elif each.HasField("g"):
                found.append((each.name, tuple(map(str, _form(each.g, values)))))
            else:
                found.append((each.name, each.SerializeToString()))
        return sorted(found, key=str)

    form: list[Any] = []
    for each in body.initializer:
        names[each.name] = len(names)
        form.append(tensor(each))
    for node in body.node:
        form.append((node.domain, node.op_type, [known(name) for name in node.input],
                     written(node.attribute)))  # fmt: skip
        for name in node.output:
            names[name] = len(names)
    return [*form, [known(value.name) for value in body.output]]
