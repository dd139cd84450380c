"""Reports read back from the JSON that they were written to."""

from __future__ import annotations

import os

import msgspec

from sparqsim.base import InputError, read_text
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.report import NetworkReport, Report

MOST_BYTES = 256 << 20  # of a file
AnyReport = Report | NetworkReport | ComparisonReport


class _Told(msgspec.Struct):
    """What tells the kinds of reports apart."""

    contenders: msgspec.Raw = msgspec.Raw(b"")
    rows: msgspec.Raw = msgspec.Raw(b"")
    critical_path: msgspec.Raw = msgspec.Raw(b"")


def read_report(path: str | os.PathLike[str]) -> AnyReport:
    """A report of a layer, a network or a comparison, as ``--json`` wrote it.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no report.
    """
    text = read_text(path, "the report", MOST_BYTES)
    try:
        told = msgspec.json.decode(text, type=_Told)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path} is no report: {error}") from None
    kinds = (
        (told.contenders, ComparisonReport), (told.rows, NetworkReport),
        (told.critical_path, Report),
    )  # fmt: skip
    for marked, kind in kinds:
        if bytes(marked):
            return _decoded(text, kind, path)
    raise InputError(
        f"{path} is no report: it must be what run --json or compare --json wrote, of a layer, a "
        "network or a comparison"
    )


def _decoded(text: str, kind: type[AnyReport], path: str | os.PathLike[str]) -> AnyReport:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path} is no whole {kind.__name__}: {error}") from None
