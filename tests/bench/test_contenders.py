"""Ours and third-party contenders pass through the same registry."""

import sys
from importlib.metadata import entry_points

import pytest

from bench import contenders
from bench.case import Case
from bench.contenders import Contender, lookup, registry, unavailable
from bench.errors import UsageError

CASE = Case(level="op", contender="mean", impl="eager", mode="fwd", canvas=(12,))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publish the names of a module under the entry point group, as an installed package does."""

    def publish(source):
        (tmp_path / "third_party.py").write_text(source)
        info = tmp_path / "third_party-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[ena_bench.contenders]\nmean = third_party:mine\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("third_party", None)

    return publish


MEAN = """
from bench.contenders import Contender
mine = [Contender(level="op", name="{name}", impl="eager", build="third_party:build")]
"""


def test_every_contender_of_ours_is_there_at_its_levels():
    names = {(level, name) for level, name, _ in registry()}
    assert names == {
        ("op", "sliding_tile"),
        ("op", "attention"),
        ("op", "delta_rule"),
        ("op", "scan"),
        *(
            (level, name)
            for level in ("layer", "model")
            for name in ("ena", "transformer", "linear")
        ),
    }


def test_an_installed_package_adds_its_contender(published):
    published(MEAN.format(name="mean"))
    assert entry_points(group=contenders.ENTRY_POINTS)
    assert lookup(CASE).build == "third_party:build"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "import nowhere_to_be_found",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("mine = [1]", "TypeError: it yields something else than bench.contenders.Contender"),
        ("def mine():\n    raise OSError('no licence\\nfor this host')", "OSError: no licence"),
        ("def mine():\n    yield 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError", "RuntimeError"),
        ("other = []", "AttributeError: module 'third_party' has no attribute 'mine'"),
    ],
)
def test_a_broken_publication_is_named_and_stops_no_other(published, source, reason):
    ours = registry().keys()
    published(source)
    assert registry().keys() == ours
    (broken,) = unavailable()
    assert broken.text == f"entry point mean of third-party 1.0 is unavailable: {reason}"
    assert (broken.key, broken.cure) == (None, "mend or uninstall third-party")
    assert lookup(CASE.with_(contender="attention")).impl == "eager"
    with pytest.raises(UsageError, match=r"mean of .* is missing here; entry point mean"):
        lookup(CASE)


def test_a_contender_whose_name_is_taken_is_unavailable_and_the_others_of_its_package_are_not(
    published,
):
    published(MEAN.format(name="attention") + MEAN.format(name="mean").replace("mine =", "mine +="))
    (broken,) = unavailable()
    assert broken.key == ("op", "attention", "eager")
    assert broken.reason == "op/attention/eager is already registered by ena-bench"
    assert lookup(CASE).build == "third_party:build"
    assert lookup(CASE.with_(contender="attention")).build != "third_party:build"


def test_an_unknown_impl_lists_the_known_ones():
    with pytest.raises(UsageError, match="no impl 'fast'") as caught:
        lookup(CASE.with_(contender="delta_rule", impl="fast"))
    assert "eager" in caught.value.expected


def test_a_contender_whose_package_was_uninstalled_is_called_missing():
    with pytest.raises(UsageError, match=r"^contender mean of op/.* is missing here") as caught:
        lookup(CASE)
    assert caught.value.expected == "the package that publishes it to be installed"
    assert "install that package" in caught.value.try_


def test_a_contender_of_other_levels_only_lists_them():
    with pytest.raises(UsageError, match="ena is no contender at level op") as caught:
        lookup(CASE.with_(contender="ena"))
    assert caught.value.expected == "level layer or model"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "cuda"}, "eager at level op runs device cpu only"),
        ({"dtype": "float16"}, "eager at level op runs dtype float32 only"),
        ({"mode": "bwd"}, "eager at level op runs mode fwd only"),
        ({"batch": 3}, "batch of 3"),
        ({}, None),
    ],
)
def test_why_not_gives_the_first_reason(change, reason):
    contender = Contender(
        level="op",
        name="mean",
        impl="eager",
        build="nowhere:build",
        devices=("cpu",),
        dtypes=("float32",),
        modes=("fwd",),
        rules=(lambda case: "batch of 3" if case.batch == 3 else None,),
    )
    assert contender.why_not(CASE.with_(**change)) == reason


def test_a_missing_library_is_the_reason():
    contender = Contender(
        level="op", name="mean", impl="x", build="a:b", needs=("no_such_lib|torch",)
    )
    assert contender.why_not(CASE) is None
    absent = Contender(level="op", name="mean", impl="x", build="a:b", needs=("no_such_lib",))
    assert absent.why_not(CASE) == "no_such_lib is not installed"


def test_a_library_that_breaks_on_import_is_told_from_one_that_is_absent(tmp_path, monkeypatch):
    for name, line in (("torn", "raise ImportError('undefined symbol')"), ("poor", "import none")):
        (tmp_path / f"{name}_mixer").mkdir()
        (tmp_path / f"{name}_mixer" / "__init__.py").write_text(line)
    monkeypatch.syspath_prepend(str(tmp_path))

    def reason(*needs):
        made = Contender(level="op", name="mean", impl="x", build="a:b", needs=needs)
        return made.why_not(CASE)

    assert reason("torn_mixer.ops") == (
        "torn_mixer.ops cannot be imported: ImportError: undefined symbol"
    )
    assert reason("poor_mixer.ops") == (
        "poor_mixer.ops cannot be imported: ModuleNotFoundError: No module named 'none'"
    )
    assert (
        reason("no_mixer.ops", "no_lib|none") == "no_mixer.ops and no_lib or none are not installed"
    )
    assert reason("torn_mixer.ops|torch") is None


def test_window_rules_of_the_libraries():
    tiled = Case(
        level="op",
        contender="sliding_tile",
        impl="natten",
        mode="fwd",
        dtype="bfloat16",
        device="cuda",
        canvas=(40, 96),
        tile=(8, 16),
        window=(24, 32),
    )
    rules = {c.impl: c for c in registry().values() if c.name == "sliding_tile"}["natten"].rules
    reasons = [rule(tiled) for rule in rules]
    assert any(r and "2 tiles is even" in r for r in reasons)
    odd = tiled.with_(window=(24, 48))
    assert not any(rule(odd) for rule in rules)


def test_dense_attention_in_ena_runs_at_sparsity_zero_only():
    dense = registry()[("layer", "ena", "sdpa_flash+eager")]
    case = Case(
        level="layer",
        contender="ena",
        impl="sdpa_flash+eager",
        mode="fwd",
        canvas=(96,),
        depth=2,
        scan="uni",
    )
    assert dense.why_not(case.with_(sparsity_target=0.0)) is None
    assert (
        dense.why_not(case.with_(sparsity_target=0.5)) == "full attention runs at sparsity 0 only"
    )
