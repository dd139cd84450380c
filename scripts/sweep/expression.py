"""Expressions of a sweep file: constraints and derived values.

The syntax is Python's, but nothing is executed: an expression is parsed and walked, and what is no
arithmetic, comparison or one of a few functions is refused by name::

    >>> Expression("rows * columns <= 1024 and machine == 'ant'").names == {
    ...     "rows", "columns", "machine"}
    True
    >>> Expression("max(rows, 2 ** 5) // 3").value({"rows": 16}.__getitem__)
    10
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from sparqsim.base import InputError

LONGEST = 1000  # characters
MOST_BITS = 1024  # of a whole number: larger ones would take long
MOST_DIGITS = 308  # that are rounded to

Names = Callable[[str], Any]  # the value of a name; KeyError if there is none

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, several: value in several,
    ast.NotIn: lambda value, several: value not in several,
}


def _round(value: Any, *digits: int) -> Any:
    if any(abs(count) > MOST_DIGITS for count in digits):
        raise ValueError(f"digits are -{MOST_DIGITS} to {MOST_DIGITS}")
    return round(value, *digits)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "int": int,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": _round,
    "sqrt": math.sqrt,
}


class Expression:
    """An expression that has been parsed and found harmless.

    Parameters
    ----------
    text
        For example ``"rows * columns <= 1024"``.

    Attributes
    ----------
    names : frozenset of str
        That it asks for, dots included.

    Raises
    ------
    InputError
        If it is none, or asks for more than arithmetic.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise InputError(f"an expression has at most {LONGEST} characters, got {len(text)}")
        try:
            self.tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            raise InputError(f"{text!r} is no expression: {why}") from None
        try:
            self.names = frozenset(self._check(self.tree))
        except RecursionError:
            raise InputError(f"{text!r} is nested too deep") from None

    def value(self, names: Names) -> Any:
        """Evaluate.

        Parameters
        ----------
        names
            The value of a name; raises KeyError where there is none.

        Raises
        ------
        InputError
            If a name has no value, or the operation none: a division by zero, text and numbers.
        """
        try:
            return _value(self.tree, names)
        except KeyError as error:
            raise InputError(
                f"{self.text!r} asks for {error.args[0]!r}, which is not there"
            ) from None
        except (ArithmeticError, TypeError, ValueError) as error:
            raise InputError(f"{self.text!r} has no value here: {error}") from None

    def _check(self, node: ast.AST) -> Iterator[str]:
        """Names in a tree; raises InputError at what is not allowed."""
        name = _dotted(node)
        if name is not None:
            if name not in FUNCTIONS:
                yield name
            return
        if isinstance(node, ast.Call):
            function = _dotted(node.func)
            if function not in FUNCTIONS or node.keywords:
                known = ", ".join(FUNCTIONS)
                told = ast.unparse(node.func)
                raise InputError(f"{self.text!r} calls {told}; the functions are {known}")
            inside: list[ast.AST] = list(node.args)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            inside = []
        elif _allowed(node):
            inside = [
                each
                for each in ast.iter_child_nodes(node)
                if not isinstance(each, ast.operator | ast.unaryop | ast.boolop | ast.cmpop)
                and not isinstance(each, ast.expr_context)
            ]
        else:
            raise InputError(
                f"{self.text!r}: {ast.unparse(node)!r} is no arithmetic, comparison or function "
                f"({', '.join(FUNCTIONS)})"
            )
        for each in inside:
            yield from self._check(each)


def _allowed(node: ast.AST) -> bool:
    """Whether a node is arithmetic or a comparison, whatever is in it."""
    if isinstance(node, ast.BinOp):
        return type(node.op) in BINARY or isinstance(node.op, ast.Pow)
    if isinstance(node, ast.Compare):
        return all(type(op) in COMPARE for op in node.ops)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub | ast.UAdd | ast.Not)
    return isinstance(node, ast.BoolOp | ast.IfExp | ast.List | ast.Tuple)


def _dotted(node: ast.AST) -> str | None:
    """``a.b.c`` of names and attributes; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = _dotted(node.value)
        return None if left is None else f"{left}.{node.attr}"
    return None


def _value(node: ast.AST, names: Names) -> Any:
    name = _dotted(node)
    if name is not None:
        return names(name)
    match node:
        case ast.Constant():
            return node.value
        case ast.BinOp():
            return _binary(node.op, _value(node.left, names), _value(node.right, names))
        case ast.UnaryOp():
            value = _value(node.operand, names)
            if isinstance(node.op, ast.Not):
                return not value
            return -value if isinstance(node.op, ast.USub) else +value
        case ast.BoolOp():
            each = (_value(part, names) for part in node.values)
            return all(each) if isinstance(node.op, ast.And) else any(each)
        case ast.Compare():
            return _compare(node, names)
        case ast.IfExp():
            return _value(node.body if _value(node.test, names) else node.orelse, names)
        case ast.Call():
            return FUNCTIONS[str(_dotted(node.func))](*(_value(arg, names) for arg in node.args))
        case ast.List() | ast.Tuple():
            return [_value(part, names) for part in node.elts]
    raise AssertionError(ast.dump(node))  # the check lets nothing else through


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise TypeError("arithmetic is on numbers")
    if not isinstance(op, ast.Pow):
        found = BINARY[type(op)](left, right)
    elif isinstance(left, int) and abs(right) * max(abs(left).bit_length(), 1) > MOST_BITS:
        raise ValueError(f"a power of more than {MOST_BITS} bits")
    else:
        found = left**right
    if isinstance(found, complex):
        raise ValueError("a root of a negative number")
    if isinstance(found, int) and found.bit_length() > MOST_BITS:
        raise ValueError(f"a whole number of more than {MOST_BITS} bits")
    return found


def _compare(node: ast.Compare, names: Names) -> bool:
    left = _value(node.left, names)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, names)
        if not COMPARE[type(op)](left, right):
            return False
        left = right
    return True
