"""Does a recipe say exactly what is done, and is everything else refused by name and place?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sparqsim.base import InputError
from sparqsim.workloads import prune, recipes
from sparqsim.workloads.recipes import Recipe, TensorRecipe, parse

FULL = """
name = "mine"
[weights]
format = "int4_narrow"
granularity = "group:64"
calibration = "percentile:99.9"
prune = "2:4"
[activations]
format = "int8"
asymmetric = true
dynamic = true
[embeddings]
format = "float32"
[[override]]
layers = "layer*.down"
weights = { format = "int8", granularity = "channel" }
[[override]]
layers = "layer0.*"
activations = { format = "float32" }
weights = { format = "codebook4" }
"""


def test_a_recipe_reads_as_written() -> None:
    """What the file says is what the record holds."""
    recipe = parse(FULL, "here")
    assert recipe.weights.group == 64
    assert recipe.weights.pattern == prune.NM(n=2, m=4, axis=1)
    assert recipe.activations.dynamic and recipe.activations.asymmetric
    assert recipe.embeddings.scheme == "keep"


def test_the_last_matching_override_counts_whole() -> None:
    """The last glob that matches replaces the class; others keep the default."""
    recipe = parse(FULL, "here")
    assert recipe.of("weights", "layer0.down").format == "codebook4"
    assert recipe.of("weights", "layer1.down") == TensorRecipe(format="int8", granularity="channel")
    assert recipe.of("weights", "layer1.up") == recipe.weights
    assert recipe.of("activations", "layer0.up").format == "float32"
    assert recipe.of("activations", "layer1.up") == recipe.activations


def test_a_recipe_survives_json() -> None:
    """A compressed model repeats its recipe: encoding and decoding changes nothing."""
    recipe = parse(FULL, "here")
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\n[weights]\nformt = "int8"', r"unknown field `formt`.*\$\.weights"),
        ('name = "x"\nwieghts = 3', "unknown field `wieghts`"),
        ('name = "x"\nname = "y"', "here"),
        ("[weights]", "missing required field `name`"),
        ('name = "x"\n[weights]\nformat = 8', r"Expected `str`.*\$\.weights\.format"),
        ('name = "x"\n[weights]\nformat = "int77"', "from 1 to 16"),
        ('name = "x"\n[weights]\nformat = "flnt4"', "no format 'flnt4'"),
        ('name = "x"\n[weights]\nformat = "ant9"', "ant must have one of"),
        ('name = "x"\n[weights]\nformat = "olive5"', "olive must have one of"),
        ('name = "x"\n[weights]\ngranularity = "row"', "tensor, channel, token or group:N"),
        ('name = "x"\n[weights]\ngranularity = "group:0"', "tensor, channel, token or group:N"),
        ('name = "x"\n[weights]\ncalibration = "max"', "minmax, mse"),
        ('name = "x"\n[weights]\ncalibration = "percentile:0"', r"\(0, 100\]"),
        ('name = "x"\n[weights]\nformat = "ant4"\ncalibration = "mse"', "finds its own scale"),
        ('name = "x"\n[weights]\nformat = "ant4"\ncalibration = "unit"', "finds its own scale"),
        (
            'name = "x"\n[weights]\nformat = "fp16"\ncalibration = "unit"\ngranularity = "channel"',
            "a scale of 1 for every value",
        ),
        (
            'name = "x"\n[activations]\nformat = "fp16"\ncalibration = "unit"\ndynamic = true',
            "a scale of 1 for every value",
        ),
        ('name = "x"\n[weights]\nformat = "pot4"\nasymmetric = true', "no zero point"),
        ('name = "x"\n[weights]\nprune = "3:2"', "n of N:M"),
        ('name = "x"\n[weights]\nprune = "star"', "no pattern 'star'"),
        ('name = "x"\n[weights]\nprune = "unstructured"', "needs a density"),
        ('name = "x"\n[weights]\nprune = "2:4"\ndensity = 0.5', "fixes its own density"),
        ('name = "x"\n[weights]\ndensity = 0.5', "needs a pattern"),
        ('name = "x"\n[weights]\nprune = "row"\ndensity = nan', "above 0 and at most 1"),
        ('name = "x"\n[weights]\nprune = "row"\ndensity = 1.5', "above 0 and at most 1"),
        (
            'name = "x"\n[weights]\nformat="int8"\ndynamic = true',
            r"\[weights\]: dynamic is for activations",
        ),
        ('name = "x"\n[activations]\nprune = "2:4"', "pruned by threshold:V"),
        ('name = "x"\n[activations]\nformat="int8"\ngranularity = "channel"', "share a scale"),
        ('name = "x"\n[activations]\nformat = "codebook4"', "known beforehand"),
        (
            'name = "x"\n[[override]]\nlayers = "a*"\nweights = {format="int8", dynamic=true}',
            "override 'a.'",
        ),
        ('name = "x"\n[[override]]\nlayers = "a*"', r"override 'a\*' must give weights"),
        ('name = "x"\n[activations]\ndynamic = true', "need a format other than float32"),
        ('name = "x"\n[weights]\nprune = "row"\ndensity = 0.5\npad = true', "pad is for N:M"),
        ("name = ", "here must be a recipe"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    """Every wrong key or value is an error message that names it and the file."""
    with pytest.raises(InputError, match=said) as caught:
        parse(text, "here")
    assert "here" in str(caught.value)


def test_an_override_must_match() -> None:
    """A glob that matches no layer is a slip, and near names are listed."""
    recipe = parse(FULL, "here")
    with pytest.raises(InputError, match=r"no layer matches override 'layer\*.down'"):
        recipe.check_names(["layer0.up", "layer1.up"])
    recipe.check_names(["layer0.down"])


def test_patterns_compose() -> None:
    """``a+b`` prunes by a, then what is left by b, and pad lets groups be short."""
    both = TensorRecipe(prune="channel+2:4", density=0.25, pad=True).pattern
    assert both == prune.CHANNEL & prune.NM(n=2, m=4, axis=1, ragged="short")
    pairs = prune.NM(n=2, m=4, axis=1, unit=2, ragged="short")
    assert TensorRecipe(prune="2:4x2", pad=True).pattern == pairs
    assert TensorRecipe(prune="block:4x8", density=0.5).pattern == prune.Blocks(height=4, width=8)
    assert TensorRecipe(prune="vector:16", density=0.5).pattern == prune.Vectors(length=16, axis=1)


def test_named_recipes_are_what_their_names_say() -> None:
    """Each file of a named recipe can be read, is named once, described, and found by its name."""
    files = list(recipes.NAMED.glob("*.toml"))
    named = recipes.named()
    assert len(named) == len(files) >= 16
    assert {"int8", "int4", "w4a8", "ant4", "olive4", "eie", "2:4", "2:4+int8"} <= set(named)
    assert {"fp16", "bf16", "tf32"} <= set(named)
    for name, recipe in named.items():
        assert recipe.description, name
        assert recipes.get(name) is recipe
    assert named["2:4+int8"].weights.prune == "2:4" and named["2:4+int8"].weights.format == "int8"


def test_a_file_and_a_name_that_are_not_there(tmp_path: Path) -> None:
    """A wrong name lists near ones; a file that is absent, or is not text, is named."""
    with pytest.raises(InputError, match="did you mean olive4"):
        recipes.get("oliv4")
    with pytest.raises(InputError, match=r"cannot read the recipe .*none\.toml"):
        recipes.get(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read the recipe .*bytes.toml"):
        recipes.get(str(tmp_path / "bytes.toml"))
    (tmp_path / "good.toml").write_text(FULL)
    assert recipes.get(str(tmp_path / "good.toml")).name == "mine"
