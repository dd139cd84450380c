"""Are SCALE-Sim's topologies and Timeloop's problems the layers that those tools compute?

Counts are held against the tools' own definitions: SCALE-Sim's windows,
``ceil((H - R + stride) / stride)``, and Timeloop's product of all dimensions.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.importers.scalesim import import_scalesim
from sparqsim.workloads.importers.timeloop import import_timeloop
from sparqsim.workloads.layers import Conv2d, Linear
from sparqsim.workloads.work import load

HEADER = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
    "Num Filter, Strides,"
)
same_folder = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@same_folder
@given(
    st.lists(st.tuples(*[st.integers(1, 9)] * 2, *[st.integers(1, 5)] * 5), min_size=1, max_size=4)
)
def test_a_topology_has_the_windows_of_scale_sim(
    tmp_path: Path, rows: list[tuple[int, ...]]
) -> None:
    """Outputs and MACs are those that SCALE-Sim computes, windows over the edge included."""
    text, wanted = [HEADER], []
    for i, (more_h, more_w, r, s, c, k, stride) in enumerate(rows):
        h, w = r + more_h - 1, s + more_w - 1
        text.append(f"layer{i}, {h}, {w}, {r}, {s}, {c}, {k}, {stride},")
        out = [math.ceil((a - b + stride) / stride) for a, b in ((h, r), (w, s))]
        wanted.append((tuple(out), out[0] * out[1] * r * s * c * k))
    model = import_scalesim(write(tmp_path / "t.csv", "\n".join(text)))
    made = [(layer.output, layer.macs) for layer in model.layers if isinstance(layer, Conv2d)]
    assert made == wanted
    for layer, (more_h, more_w, r, s, c, _, _) in zip(model.layers, rows, strict=True):
        assert layer.input_elements == c * (r + more_h - 1) * (s + more_w - 1)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("comma", ["", ","])
def test_all_ways_of_writing_a_topology(
    tmp_path: Path, encoding: str, end: str, comma: str
) -> None:
    """With and without a byte-order mark, a comma at the end, blank lines, Windows' ends."""
    lines = [HEADER.rstrip(","), "", "Conv1, 10, 12, 3, 5, 2, 7, 2", "  ", "Conv1, 4,4,4,4,1,1,1"]
    text = end.join(line + comma if line.strip() else line for line in lines)
    first, second = import_scalesim(write(tmp_path / "t.csv", text, encoding)).layers
    assert isinstance(first, Conv2d) and (first.name, second.name) == ("Conv1", "Conv1#2")
    assert (first.input, first.kernel, first.stride) == ((10, 12), (3, 5), (2, 2))
    assert (first.in_channels, first.out_channels) == (2, 7)


def test_other_columns_of_a_topology(tmp_path: Path) -> None:
    """Two strides, N:M sparsity as a density, and DP for depthwise."""
    text = (
        "Layer name,IFMAP height,IFMAP width,Filter height,Filter width,Channels,Num filter,"
        "Stride height,Stride width,Sparsity,\nA,9,9,3,3,4,8,2,1,2:4,\nDP1,9,9,3,3,4,1,1,1,1:1,\n"
    )
    first, second = import_scalesim(write(tmp_path / "t.csv", text)).layers
    assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
    assert first.stride == (2, 1) and first.weight_density == 0.5
    assert second.groups == 4 and second.macs == 4 * 7 * 7 * 9 and second.weight_density is None


@given(*[st.integers(1, 99)] * 3)
@same_folder
def test_products_of_a_topology(tmp_path: Path, m: int, n: int, k: int) -> None:
    """`Layer, M, N, K`: M rows of K by N outputs, whatever the order of the columns."""
    for text in (f"Layer, M, N, K,\ng, {m}, {n}, {k},", f"Layer,N,K,M\ng,{n},{k},{m}"):
        (layer,) = import_scalesim(write(tmp_path / "t.csv", text)).layers
        assert isinstance(layer, Linear) and layer.gemm() == (m, n, k, 1) and not layer.bias


REPORT = "LayerID, Total Cycles (incl. prefetch), Total Cycles, Overall Util %,\n0, 20, 18, 80.0,\n"


@pytest.mark.parametrize(
    "text, says",
    [
        (
            REPORT,
            "a report of SCALE-Sim); it has no sizes: give the topology that it was made from",
        ),
        ("", "got nothing (unknown)"),
        ("a,b,c\n1,2,3", "name the columns as SCALE-Sim does"),
        (HEADER, "must hold one layer per row below its header"),
        (f"{HEADER}\nc, 3, 3, 3, 3, 1, 1,", "line 2: strides must be whole and at least 1, got ''"),
        (f"{HEADER}\nc, 3, 3, 3, 3, 1, 1.5, 1", "line 2: numfilter must be whole"),
        (f"{HEADER}\n\nc, 3, 3, 3, 3, 0, 1, 1", "line 3: channels must be whole and at least 1"),
        (f"{HEADER}\nc, 3, 3, 4, 3, 1, 1, 1", "line 2: its filter of 4 must fit its input of 3"),
        ("Layer, M, N, K\ng, 1, 2, 99999999999", "line 2: k must be whole"),
        ("Layer, M, N, K, Sparsity\ng, 1, 2, 3, 0:4", "N:M must keep 1 to M of M, got 0:4"),
    ],
)
def test_no_topology(tmp_path: Path, text: str, says: str) -> None:
    """A report, a table of something else and a row without a size are answered by an error."""
    with pytest.raises(InputError) as error:
        import_scalesim(write(tmp_path / "t.csv", text))
    assert says in str(error.value) and "t.csv" in str(error.value)


def test_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, a folder and a missing file cannot be read."""
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be text in UTF-8"):
        import_scalesim(tmp_path / "b.csv")
    for name in ("absent.csv", "."):
        with pytest.raises(InputError, match="cannot read"):
            import_scalesim(tmp_path / name)


# -- Timeloop --------------------------------------------------------------------------------

SHAPE = """
  shape:
    name: CNN_Layer
    dimensions: [ C, M, R, S, N, P, Q ]
    coefficients:
      - {name: Wstride, default: 1}
      - {name: Hstride, default: 1}
      - {name: Wdilation, default: 1}
      - {name: Hdilation, default: 1}
    SPACES:
      - name: Weights
        projection: [ [[C]], [[M]], [[R]], [[S]] ]
      - name: Inputs
        projection: [ [[N]], [[C]], [[R, Wdilation], [P, Wstride]], [[S, Hdilation], [Q, Hstride]] ]
      - name: Outputs
        projection: [ [[N]], [[M]], [[Q]], [[P]] ]
        read_write: True
"""
SIZES = {"C": 3, "M": 8, "R": 3, "S": 5, "N": 2, "P": 7, "Q": 6, "Wstride": 2, "Hdilation": 2}


def block(sizes: dict[str, object], indent: int) -> str:
    return "".join(f"{' ' * indent}{key}: {value}\n" for key, value in sizes.items())


FORMS = {
    "0.4": "problem:\n  version: 0.4\n  instance:\n" + block(SIZES, 4)
    + SHAPE.replace("SPACES", "data_spaces"),
    "older": "problem:\n" + SHAPE.replace("SPACES", "data-spaces") + "  instance:\n"
    + block(SIZES, 4),
    "by name": "problem:\n  shape: cnn-layer\n" + block(SIZES, 2),
    "named K": "problem:\n  shape: cnn-layer\n" + block(SIZES, 2).replace("M:", "K:"),
    "tagged": "problem: !Problem\n  instance: !Instance\n" + block(SIZES, 4)
    + SHAPE.replace("SPACES", "data_spaces"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _yaml(request: pytest.FixtureRequest) -> None:
    if "problem" in request.node.name:
        pytest.importorskip("yaml")


@pytest.mark.parametrize("form", FORMS)
def test_a_problem_in_every_form(tmp_path: Path, form: str) -> None:
    """Version 0.4, the older forms, a shape by name, tags: one convolution."""
    (layer,) = import_timeloop(write(tmp_path / "p.yaml", FORMS[form])).layers
    assert isinstance(layer, Conv2d) and layer.name == "p"
    assert layer.macs == 3 * 8 * 3 * 5 * 2 * 7 * 6
    assert (layer.in_channels, layer.out_channels, layer.batch) == (3, 8, 2)
    # P and R run along the width, with Wstride; Q and S down the height
    assert (layer.kernel, layer.output, layer.stride) == ((5, 3), (6, 7), (1, 2))
    assert layer.dilation == (2, 1) and layer.input == (6 + 4 * 2, 6 * 2 + 3)


NAMES = [*"CMRSNPQ", "Wstride", "Hstride", "Wdilation", "Hdilation"]


@given(st.fixed_dictionaries({name: st.integers(1, 5) for name in NAMES}))
@same_folder
def test_macs_of_a_problem_are_the_product_of_its_dimensions(
    tmp_path: Path, sizes: dict[str, int]
) -> None:
    """No padding, no edge: N M C R S P Q multiply-accumulates."""
    text = "problem:\n  shape: cnn-layer\n" + block(sizes, 2)
    (layer,) = import_timeloop(write(tmp_path / "p.yaml", text)).layers
    assert layer.macs == math.prod(sizes[name] for name in "CMRSNPQ")


def test_groups_and_depthwise_problem(tmp_path: Path) -> None:
    """G groups of C and M channels each; without M every channel is filtered alone."""
    sizes: dict[str, object] = {"G": 2, "C": 3, "M": 4, "R": 3, "P": 5}
    text = "problem:\n  shape: {dimensions: [G, C, M, R, P]}\n  instance:\n" + block(sizes, 4)
    (layer,) = import_timeloop(write(tmp_path / "p.yaml", text)).layers
    assert isinstance(layer, Conv2d) and layer.groups == 2 and layer.macs == 2 * 3 * 4 * 3 * 5
    text = "problem:\n  shape: {dimensions: [C, R, P]}\n  instance: {C: 6, R: 3, P: 5}\n"
    (layer,) = import_timeloop(write(tmp_path / "p.yaml", text)).layers
    assert isinstance(layer, Conv2d) and layer.groups == 6 and layer.macs == 6 * 3 * 5


def test_product_problem_and_densities(tmp_path: Path) -> None:
    """M, N, K is a product; A's density is the inputs', B's the weights'."""
    text = """
problem:
  shape:
    name: gemm-ABZ
    dimensions: [M, N, K]
    data-spaces:
    - {name: A, projection: [[[M]], [[K]]]}
    - {name: B, projection: [[[N]], [[K]]]}
    - {name: Z, projection: [[[M]], [[N]]], read-write: true}
  instance:
    K: 1024
    M: 512
    N: 256
    densities:
      A: {density: 0.5, distribution: fixed-structured}
      B: 0.25
"""
    (layer,) = import_timeloop(write(tmp_path / "p.yml", text)).layers
    assert isinstance(layer, Linear) and layer.gemm() == (512, 256, 1024, 1)
    assert (layer.activation_density, layer.weight_density) == (0.5, 0.25)


@pytest.mark.parametrize(
    "text, says",
    [
        ("architecture: {}", "must hold a Timeloop 'problem:'"),
        ("[1, 2]", "must hold a Timeloop 'problem:'"),
        ("problem: 3", "must hold a Timeloop 'problem:'"),
        ("problem: {shape: cnn-layer, C: [", "is no YAML as it stands"),
        ("problem: {{ include('x') }}\nx: }", "expand templates and includes first"),
        ("problem: {shape: x, instance: '0 <= c < 3'}", "must give sizes by name, as C: 64, got a"),
        ("problem: {shape: x, instance: [1]}", "must give sizes by name"),
        ("problem: {shape: cnn-layer, C: 0}", "C must be whole and at least 1, got 0"),
        ("problem: {shape: cnn-layer, C: BATCH}", "C must be whole and at least 1, got 'BATCH'"),
        ("problem: {shape: cnn-layer, C: true}", "C must be whole"),
        ("problem: {shape: cnn-layer, C: 1.5}", "C must be whole"),
        ("problem: {shape: nothing}", "must be those of a convolution (C M R S P Q N) or M N K"),
        ("problem: {shape: cnn-layer, C: 2, M: 2, K: 2}", "M or K, got both"),
        ("problem: {shape: {dimensions: [A, B]}, instance: {A: 2, B: 2}}", "over A, B is no conv"),
        ("problem: {shape: {dimensions: 3}, instance: {C: 2}}", "dimensions must be names"),
        (
            "problem: {shape: {dimensions: [M, N, K]}, instance: {M: 2, densities: {A: 2}}}",
            "density of A must be in (0, 1], got 2",
        ),
        ("problem: !!python/object/apply:os.getcwd []", "is no YAML as it stands"),
    ],
)
def test_no_problem(tmp_path: Path, text: str, says: str) -> None:
    """What is no problem, or one that is no layer, is answered by an error message."""
    with pytest.raises(InputError) as error:
        import_timeloop(write(tmp_path / "p.yaml", text))
    assert says in str(error.value) and "p.yaml" in str(error.value)


def test_without_pyyaml_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named."""
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InputError, match=r"pip install 'sparqsim\[timeloop\]'"):
        import_timeloop(write(tmp_path / "p.yaml", FORMS["by name"]))


# -- a table of one's own --------------------------------------------------------------------------

SIZES = "in_channels,out_channels,input,kernel,padding,m,k,n,batch,repeat,bias,weight_bits"
OWN = f"""name,kind,in_features,out_features,rows,{SIZES}
stem,conv2d,,,,3,64,224x224,7x7,3x3,,,,,,false,8
scores,matmul,,,,,,,,,128,64,100,12,6,,
head,linear,64,10,5,,,,,,,,,,,,4
"""


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    """Columns are the fields of layers; an empty cell is the default."""
    network = load(str(write(tmp_path / "own.csv", "\ufeff" + OWN)))
    stem, scores, head = network.model.layers
    assert stem == Conv2d(
        name="stem", in_channels=3, out_channels=64, input=(224, 224), kernel=(7, 7),
        padding=(3, 3), bias=False, weight_bits=8,
    )  # fmt: skip
    assert (scores.macs, scores.repeat) == (12 * 128 * 64 * 100, 6)
    assert (head.macs, head.parameters, head.weight_bits) == (5 * 640, 650, 4)
    assert network.report is not None
    assert network.report.taken == {"Conv2d": 1, "MatMul": 1, "Linear": 1}


@pytest.mark.parametrize(
    "change, says",
    [
        (("in_features", "inputs"), "a layer has no field 'inputs'"),
        (("rows", "in_features"), "column 'in_features' twice"),
        (("matmul", "dense"), "line 3: there is no kind 'dense'"),
        (("64,10,5", "64,,5"), "line 4: its cells are no linear"),
        (("64,10,5", "64,10,0"), "layer 'head': rows must be whole and at least 1, got 0"),
        (("64,10,5", "64,ten,5"), "line 4: out_features must be a whole number"),
        (("stem,conv2d,", "stem,conv2d,7"), "line 2: a conv2d has no in_features"),
        (("7x7", "7"), "line 2: its cells are no conv2d"),
        (("scores,", "stem,"), "layer names must be unique"),
    ],
)
def test_a_wrong_table_is_named_by_its_line(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    """Unknown columns and kinds, missing and wrong cells: an error message with the line."""
    with pytest.raises(InputError) as error:
        load(str(write(tmp_path / "own.csv", OWN.replace(*change, 1))))
    assert says in str(error.value)
