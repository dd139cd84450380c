"""Is a submitted machine judged as it should be, and is a hostile one a result and no crash?

Some submissions here misbehave on purpose, each in one way and within bounds.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from paths import DOCS

from sparqsim.architectures.machine import Machine, Program, program
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.scripts.grade import handover
from sparqsim.scripts.grade.answers import grade
from sparqsim.scripts.grade.cases import encoded, hidden_cases, public_cases
from sparqsim.scripts.grade.guarded import Limits
from sparqsim.scripts.grade.jury import Task, judge
from sparqsim.scripts.grade.labs import contest
from sparqsim.scripts.grade.labs import machine as machine_lab
from sparqsim.scripts.grade.sheet import SEED_VARIABLE, Grade, draw
from sparqsim.simulator.memory.dram import Dram, Granularity
from sparqsim.simulator.memory.open_row import OpenRow
from sparqsim.simulator.memory.standards import dram_standard
from sparqsim.simulator.netlist import Resource

WHO = "s1234567"
SEED = "a seed that nobody guesses"
BUDGET = {"multipliers": 64, "bytes_per_cycle": 16}  # of docs/howto/dot.py
DOT = get_machine(str(DOCS / "howto" / "dot.py"))


def judged(made: Machine, change: Any, folder: Path, number: int = 0) -> Any:
    """The verdict on a machine's program of a public case, after a change; both ways in here."""
    case = public_cases()[number]
    layer = encoded(case)
    lowered: Program = change(program(made, layer))
    path = folder / "0.npz"
    handover.write(path, lowered, made.computes(layer), made.bandwidth())
    return judge(Task(**BUDGET, cases=[case]), case, path)


def same(lowered: Program) -> Program:
    return lowered


@pytest.mark.parametrize("number", [0, 1])
def test_a_right_machine_keeps_laws_and_bounds(tmp_path: Path, number: int) -> None:
    """The guide's machine, handed over as numbers and judged, breaks nothing."""
    verdict = judged(DOT(), same, tmp_path, number)
    assert (verdict.laws, verdict.bounds) == ([], []) and 1 <= verdict.over_bound < 10


def faster(lowered: Program) -> Program:
    """All firings in a cycle each."""
    netlist = lowered.netlist
    actors = [replace(actor, busy=1) for actor in netlist.actors]
    return replace(lowered, netlist=replace(netlist, actors=actors))


def without_traffic(lowered: Program) -> Program:
    ports = [replace(port, read_bits=0, written_bits=0) for port in lowered.account.ports]
    return replace(lowered, account=replace(lowered.account, ports=ports))


def one_wrong(lowered: Program) -> Program:
    assert lowered.outputs is not None
    outputs = lowered.outputs.copy()
    outputs.flat[-1] ^= 1
    return replace(lowered, outputs=outputs)


WRONG = {
    "one bit of one output": (one_wrong, "outputs are mismatch"),
    "no outputs": (lambda p: replace(p, outputs=None), "there are no outputs"),
    "a scale of its own": (lambda p: replace(p, output_scale=2.0), "outputs are mismatch"),
    "outputs of another shape": (lambda p: replace(p, outputs=p.outputs[:1]), "have shape (1, 40)"),
    "every firing in a cycle": (faster, "fewer than the lower bound"),
    "bits that do not move": (without_traffic, "must read at least"),
    "more multipliers": (lambda p: replace(p, multipliers=65), "multipliers must be 1 to 64"),
    "less work told": (
        lambda p: replace(p, macs=msgspec.structs.replace(p.macs, dense=7)), "dense MACs are told",
    ),
    "no such worker": (lambda p: replace(p, worker="x"), "no actor"),
    "huge outputs": (lambda p: replace(p, outputs=p.outputs.astype(np.int64) + 2**62), "mismatch"),
    "a scale that is no number": (lambda p: replace(p, output_scale=np.nan), "is no program"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_machine_is_found(tmp_path: Path, name: str) -> None:
    """Each fault is told by a sentence of the laws or of the bounds, and raises nothing."""
    change, said = WRONG[name]
    verdict = judged(DOT(), change, tmp_path)
    assert any(said in sentence for sentence in verdict.laws + verdict.bounds), verdict


def on_dram(lowered: Program, standard: Any = "DDR3-1600", share: int = 1) -> Program:
    """The guide's machine with a DRAM of rows and banks, of each transfer a share requested."""
    netlist = lowered.netlist
    dram, actors = Dram(standard=standard), []
    for actor in netlist.actors:
        ports = [port for port in lowered.account.ports if port.actor == actor.name]
        if ports:
            size = max(1, int(ports[0].read_bits + ports[0].written_bits) // 8 // share)
            (requests,) = dram.requests(
                1024 * np.arange(actor.count), size, actor.name == "store", Granularity.TILE
            )
            actor = replace(actor, request=requests)
        actors.append(actor)
    resources = dram.resources(netlist.clock_hz)
    return replace(lowered, netlist=replace(netlist, actors=actors, resources=resources))


def with_memory(lowered: Program, model: Any, request: list[int]) -> Program:
    """The guide's machine with a model in the place of its DRAM, and one request for all."""
    netlist = lowered.netlist
    actors = [
        replace(actor, request=[request] * actor.count) if actor.resource else actor
        for actor in netlist.actors
    ]
    resources = [Resource(name="dram", model=model)]
    return replace(lowered, netlist=replace(netlist, actors=actors, resources=resources))


@pytest.mark.parametrize("number", [0, 1])
def test_a_machine_may_have_stateful_memories(tmp_path: Path, number: int) -> None:
    """A DRAM of a standard, or banks with open rows: judged by both engines as any machine."""
    rows = OpenRow(hit_cycles=8, miss_cycles=20)
    for change in (on_dram, lambda p: with_memory(p, rows, [0, 3, 1])):
        verdict = judged(DOT(), change, tmp_path, number)
        assert (verdict.laws, verdict.bounds) == ([], []) and verdict.over_bound >= 1


def test_a_wrong_stateful_memory_is_found(tmp_path: Path) -> None:
    """Less is requested than is told; more bandwidth than the budget has; wrong outputs."""
    for change, said in (
        (lambda p: on_dram(p, share=4), "load requests"),
        (lambda p: on_dram(p, "DDR4-3200"), "at most 1.6e+10 bytes a second"),
        (lambda p: one_wrong(on_dram(p)), "outputs are mismatch"),
    ):
        verdict = judged(DOT(), change, tmp_path)
        assert any(said in sentence for sentence in verdict.laws + verdict.bounds), verdict


class Free(OpenRow):
    """A memory that answers by code of its own."""

    def serve(self, *_: Any) -> tuple[int, int, int]:
        raise SystemExit("the judge ran a student's code")

    rank = serve


def test_a_hostile_stateful_memory_is_refused(tmp_path: Path) -> None:
    """Code of its own, a table of its own, another clock, requests out of bounds, forged fields:
    nothing of it passes, and the judge says why."""
    table = msgspec.structs.replace(dram_standard("DDR3-1600"), name="mine", CL=12)
    for change, said in (
        (lambda p: with_memory(p, Free(), [0, 0, 0]), "has a model of its own"),
        (lambda p: on_dram(p, table), "by its name"),
    ):
        with pytest.raises(InputError, match=said):
            judged(DOT(), change, tmp_path)
    for old, new, said in (
        (b'"clock_hz":1000000000.0}', b'"clock_hz":1000.0}', "the netlist's clock"),
        (b'"standard":"DDR3-1600"', b'"standard":"DDR9"', "is no program"),
        (b'"write_batch":20', b'"write_batch":-1', "is no program"),
    ):
        judged(DOT(), on_dram, tmp_path)
        path, case = tmp_path / "0.npz", public_cases()[0]
        members = dict(np.load(path))
        told = members["program"].tobytes()
        members["program"] = np.frombuffer(told.replace(old, new), np.uint8)
        np.savez(path, **members)
        verdict = judge(Task(**BUDGET, cases=[case]), case, path)
        assert said in "".join(verdict.laws) and old in told


def test_what_is_no_program_is_a_verdict(tmp_path: Path) -> None:
    """Bytes, a link, an npz without a program, or one whose JSON is something else."""
    path, task, case = tmp_path / "0.npz", Task(**BUDGET, cases=[]), public_cases()[0]
    assert judge(task, case, path).laws == ["it handed over no file"]
    path.write_bytes(b"PK\x03\x04 no archive")
    assert "must be an npz" in judge(task, case, path).laws[0]
    np.savez(path, program=np.frombuffer(b'{"actors": 3}', np.uint8))
    assert "is no program" in judge(task, case, path).laws[0]
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert judge(task, case, path).laws == ["it handed over no file"]


def test_hidden_cases_are_the_seeds() -> None:
    """The same generator draws the same layers, another one others; their numbers as well."""
    first, again, other = (hidden_cases(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other and all(case.hidden for case in first)
    assert not np.array_equal(encoded(first[0]).given.weight.shape,
                              encoded(other[0]).given.weight.shape)  # fmt: skip


# ---------------------------------------------------------------- in processes of their own


def submitted(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, seconds: float = 30, **limits: Any
) -> Grade:
    """The grade of a machine file."""
    (folder / "mine.py").write_text(text, encoding="utf-8")
    (folder / "answers.toml").write_text('file = "mine.py"\n', encoding="utf-8")
    monkeypatch.setattr(machine_lab, "LIMITS", Limits(seconds=seconds, **limits))
    monkeypatch.setenv(SEED_VARIABLE, SEED)
    found = grade("machine", str(folder / "answers.toml"), WHO)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Grade) == found
    assert SEED not in msgspec.json.encode(found).decode()
    return found


LINGER = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({pid!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(0.3)
"""
HOSTILE = {
    "waits for ever": ("import time\ntime.sleep(600)", "still running after 1 s"),
    "loops for ever": ("while True: pass", "still running after 1 s"),
    "takes all memory": ("hold = bytearray(2**40)", "MemoryError"),
    "leaves with a code": ("import os\nos._exit(7)", "ended with code 7"),
    "raises": ("raise SystemError('no \\x1b[2J escape')", "SystemError"),
    "is no Python": ("def (", "SyntaxError"),
    "is killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "by signal 9"),
    "fills the disk": ("open('x', 'wb').write(bytes(2**26 + 1))", ""),
    "talks": ("print('x' * 10**6)\nraise SystemExit(3)", "ended with code 3"),
    "kills its guard": ("import os\nos.kill(os.getppid(), 9)", "process that watched over it"),
    "forks": ("import os, time\nfor _ in range(30):\n    os.fork() or time.sleep(60)",
              "more than 4 processes"),
    "reads the environment": (
        f"import os\nraise SystemExit(os.environ.get({SEED_VARIABLE!r}, 'not there'))", "not there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No points, a reason in words that steer no terminal, and nothing printed by the file."""
    text, said = HOSTILE[name]
    found = submitted(tmp_path, text, monkeypatch, seconds=1)
    assert found.points == 0 and found.of == 20
    assert said in found.remarks[0] and found.remarks[0].isprintable()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "os.kill(os.getppid(), 9)"])
def test_nothing_of_a_submission_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A daemon that left its session and its parent is dead when the grade is there, also where the
    guard was killed."""
    pid = tmp_path / "pid"
    found = submitted(tmp_path, LINGER.format(pid=str(pid)) + end, monkeypatch)
    assert found.points == 0
    number, deadline = int(pid.read_text()), time.monotonic() + 5
    while time.monotonic() < deadline and os.path.exists(f"/proc/{number}"):
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{number}")


def test_the_file_must_lie_beside_the_answers(tmp_path: Path) -> None:
    """Another folder, a link, no name, a number: nothing is run."""
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    for value in ("'../mine.py'", "'/etc/mine.py'", "'link.py'", "'none.py'", "3", "['a.py']"):
        path = tmp_path / "answers.toml"
        path.write_text(f"file = {value}\n", encoding="utf-8")
        found = grade("machine", str(path), WHO)
        assert found.points == 0 and "beside" in found.remarks[0]


def fitting() -> str:
    """The guide's machine at the student's sealed budget."""
    given = draw("machine", WHO, SEED)
    text = (DOCS / "howto" / "dot.py").read_text(encoding="utf-8")
    text = text.replace("lanes: int = 64", f"lanes: int = {given['multipliers']}")
    return text.replace("per_cycle: int = 16", f"per_cycle: int = {given['bytes_per_cycle']}")


@pytest.mark.slow
def test_a_right_file_gets_its_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws and bounds of public and hidden cases, through both processes."""
    found = submitted(tmp_path, fitting(), monkeypatch, seconds=120)
    lost = [mark for mark in found.marks if mark.verdict != "right"]
    assert all("near the bound" in mark.question for mark in lost), found
    assert sum("hidden" in mark.question for mark in found.marks) == 6 and not found.remarks


CHEATS = {
    # The judge is another process, so its words cannot be changed from here.
    "says that no law is broken": """
import sparqsim.architectures.laws as laws, sparqsim.scripts.grade.jury as jury
laws.broken = jury.broken = lambda *_: []
jury.judge = lambda *_: jury.Verdict(over_bound=1.0)
""",
    # The judge imports nothing from the folders of a submission.
    "leaves modules to be imported": """
import pathlib
for folder in (".", "..", "../jury"):
    for name in ("msgspec", "numpy", "sparqsim"):
        pathlib.Path(folder, name + ".py").write_text("raise SystemExit(0)")
""",
    "writes a verdict": """
import pathlib
pathlib.Path("../jury/verdict.json").write_text('[{"over_bound": 1.0}]' * 4)
""",
}
WRONG_FILE = "x, w, integer_products, 32)", "x, w, lambda *a: integer_products(*a) + 1, 32)"


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A machine that computes wrong gets no point for its laws, whatever else its file does."""
    found = submitted(tmp_path, CHEATS[name] + fitting().replace(*WRONG_FILE), monkeypatch, 120)
    assert {m.verdict for m in found.marks if m.question.endswith("laws")} == {"wrong"}
    assert any("outputs are mismatch" in mark.why for mark in found.marks)


@pytest.mark.slow
def test_who_leaves_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code 0 and no program: the judge says that nothing was handed over."""
    found = submitted(tmp_path, "import os\nos._exit(0)", monkeypatch, 120)
    assert found.points == 0 and "handed over no file" in found.marks[0].why


# ---------------------------------------------------------------- the contest


ENTRY = {
    "configuration": {"pes": 16, "queue_slots": 9},
    "recipe": {"weights": {"format": "codebook4", "prune": "unstructured", "density": 0.6}},
}


def evaluated(folder: Path, entry: Any) -> Any:
    path = folder / "entry.json"
    path.write_bytes(msgspec.json.encode(entry))
    return contest.evaluate(str(path))


def test_an_entry_is_measured_or_refused(tmp_path: Path) -> None:
    """An entry within the rules has its measures; one beyond the area, less accurate, or of
    unknown fields is refused in words."""
    good = evaluated(tmp_path, ENTRY)
    assert good.refused == "" and good.accuracy >= contest.ACCURACY and good.edp_js > 0
    assert good.area_mm2 <= contest.AREA_MM2
    for change, said in (
        ({"configuration": {"pes": 64}}, "area must be at most"),
        ({"configuration": {"clock_hz": 10**12}}, "may set"),
        ({"configuration": {"pes": "many"}}, "got `str`"),
        ({"configuration": {"pes": -1}}, "pes"),
        ({"recipe": {"weights": {"format": "codebook2", "prune": "unstructured", "density": 0.05}}},
         "accuracy must be at least"),
        ({"recipe": {"weights": {"format": "int8", "secret": 1}}}, "unknown field"),
        ({"machine": "mine.py"}, "unknown field"),
    ):  # fmt: skip
        assert said in evaluated(tmp_path, ENTRY | change).refused


@pytest.mark.slow
def test_an_entry_is_graded_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good one gets its point and a place; one that takes too long is refused, no crash."""
    path = tmp_path / "answers.toml"
    path.write_text(
        "[configuration]\npes = 16\nqueue_slots = 9\n[recipe.weights]\nformat = 'codebook4'\n"
        "prune = 'unstructured'\ndensity = 0.6\n",
        encoding="utf-8",
    )
    found = grade("contest", str(path), WHO)
    assert found.points == 1 and found.entry == evaluated(tmp_path, ENTRY)
    monkeypatch.setattr(contest, "LIMITS", Limits(seconds=0.5))
    late = grade("contest", str(path), WHO)
    assert late.points == 0 and "still running" in late.entry.refused


def test_the_board_ranks_the_best_entry_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Least energy x time first, refused ones last without a place, one row per student; files that
    are no result are named and hold nothing up."""
    from sparqsim.scripts.cli import cli

    def result(name: str, student: str, edp: float | None, refused: str = "") -> None:
        entry = contest.Entry(edp_js=edp, accuracy=0.96, area_mm2=10.0, refused=refused)
        made = Grade(lab="contest", student=student, sheet="practice", points=1, of=1, marks=[],
                     entry=entry)  # fmt: skip
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(made))

    result("a1", "ann", 3e-14)
    result("a2", "ann", 1e-14)
    result("b", "bob", 2e-14)
    result("c", "cy", 1e-20, "area must be at most 12 mm2")
    (tmp_path / "bad.json").write_text("{" * 10000)
    (tmp_path / "other.json").write_text('{"lab": "eie"}')
    words = ["grade", "contest", "--board", str(tmp_path)]
    cli.main(args=[*words, "--json", "-"], prog_name="sparqsim", standalone_mode=False)
    rows = msgspec.json.decode(capsys.readouterr().out)
    assert [row["student"] for row in rows] == ["ann", "bob", "cy"]
    assert rows[0]["entry"]["edp_js"] == 1e-14
    cli.main(args=words, prog_name="sparqsim", standalone_mode=False)
    out = capsys.readouterr().out
    assert "bad.json is no result" in out and "other.json is no result" in out
    with pytest.raises(InputError, match="folder of results"):
        cli.main(args=[*words[:3], "/nowhere"], prog_name="sparqsim", standalone_mode=False)
