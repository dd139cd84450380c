"""Does ``sparqsim formats`` show what there is, and answer wrong input with one message?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparqsim.scripts.cli import main
from sparqsim.scripts.formats import DRAWN, draw
from sparqsim.workloads import formats


def test_the_list_has_a_row_for_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Each listed format stands in the table with its bits and source; so does the grammar."""
    main(["formats"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    first_words: dict[str, str] = {}
    for line in lines:
        if line.split():
            first_words.setdefault(line.split()[0], line)
    for name in formats.names():
        row = first_words[name].split()
        assert row[1] == str(formats.get(name).bits)
        assert first_words[row[-1]] == f"{row[-1]}  {formats.get(name).source}"
    assert any(line.startswith("flint{3..8}_signed") for line in lines)


def test_one_format_shows_its_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Code, value, integer, exponent; the spare code is marked; a pair format shows both parts."""
    main(["formats", "flint4_signed"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0100", "16", "1", "4"] in rows
    assert ["1000", "0", "0", "0", "never", "encoded"] in rows
    main(["formats", "ovp_int4"])
    text = capsys.readouterr().out
    assert "int4_narrow" in text and "abfloat4_E2M1_bias2_signed" in text
    main(["formats", "float16"])
    assert "the first 256 of 65536 codes" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*DRAWN, "float8_e5m2", "int1"])
def test_json_of_one_format_is_its_tables(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The values, and for each code the value as integer times a power of two, or its special."""
    main(["formats", name, "--json", "-"])
    content = json.loads(capsys.readouterr().out)
    format_ = formats.get(name)
    assert content["name"] == format_.name and content["values"] == format_.values.tolist()
    parts = [content] if "codes" in content else [content["normal"], content["outlier"]]
    for part in parts:
        for row in part["codes"]:
            if row["value"] is None:
                assert row["special"] in ("inf", "-inf", "nan")
            else:
                assert row["value"] == row["integer"] * 2.0 ** row["exponent"]


def test_json_of_the_list(tmp_path: Path) -> None:
    """One object a format, to a file."""
    target = tmp_path / "formats.json"
    main(["formats", "--json", str(target)])
    assert [row["name"] for row in json.loads(target.read_text())] == list(formats.names())


def test_the_figure_shows_every_value(tmp_path: Path) -> None:
    """A row of ticks a format, as many as it has values; written as the suffix says."""
    linear, octaves = draw([formats.get(name) for name in DRAWN]).axes
    assert [label.get_text() for label in linear.get_yticklabels()] == list(DRAWN)
    for name, ticks, right in zip(DRAWN, linear.lines, octaves.lines, strict=True):
        values = formats.get(name).values
        assert len(ticks.get_xdata()) == len(values)
        assert len(right.get_xdata()) == (values > 0).sum()
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        main(["formats", "pot4_signed", "--figure", str(tmp_path / f"f.{kind}")])
        assert (tmp_path / f"f.{kind}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flint4"], "did you mean"),
        (["int4", "--figure", "f.bmp"], "must end in .png"),
        (["int4", "--figure", "/dev/null/f.png"], "cannot write"),
        (["int4", "--json", "/dev/null/f.json"], "cannot write"),
        (["--json", "."], "must be a file"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, a message, and nothing written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["formats", *arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert not captured.out and not list(tmp_path.iterdir())


def test_small_numbers_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Enough decimals to tell the steps of the grid apart, not 0.00 for all."""
    main(["formats", "int4", "--quantize", "0.0014,0.0004"])
    told = capsys.readouterr().out
    assert "scale 0.0002," in told and "0.00140 0.00040" in told
    main(["formats", "int4", "--quantize", "7e-20,4e-20"])
    assert "scale 1e-20," in capsys.readouterr().out
