"""A bundle's config is worked out as data, and whatever would need execution is refused."""

from pathlib import Path

import pytest

from MedAILib.config import Component, Config, Name, read_config
from MedAILib.errors import SpecError

HERE = Path("configs/inference.json")


def value(expression: str, **entries: object) -> object:
    return Config({"x": expression, **entries}, HERE).get("x")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("$1 + 2 * 3", 7),
        ("$-(2 ** 4) // 3", -6),
        ("$[1.5, 1.5, 2.0] if @high else [3.0]", [1.5, 1.5, 2.0]),
        ("$len(@channels) - 1", 2),
        ("$@channels[-1]", 64),
        ("$@channels[:2]", [16, 32]),
        ("$@root + '/models/' + @name", "./models/model.pt"),
        ("$max(@channels) / 2", 32.0),
        ("$not @high or 3 in (1, 2)", False),
        ("$1 < 2 <= 2", True),
        ("@channels#1", 32),
        ("@nested::deep#0", "a"),
        ("$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')", "cpu"),
        ("$torch.float32", Name("torch.float32")),
        ("plain text with @ in it", "plain text with @ in it"),
    ],
)
def test_plain_expressions_have_their_value(expression: str, expected: object) -> None:
    entries = {"channels": [16, 32, 64], "high": True, "root": ".", "name": "model.pt", "nested": {"deep": ["a"]}}
    assert value(expression, **entries) == expected


def test_a_component_keeps_its_name_and_resolved_arguments() -> None:
    network = {"_target_": "UNet", "out_channels": "@classes", "strides": "$[2] * 3"}
    assert value("$@net.to('cpu')", net=network, classes=4) == Component(
        "UNet", {"out_channels": 4, "strides": [2, 2, 2]}
    )


def test_a_disabled_component_is_left_out_of_its_list() -> None:
    steps = [{"_target_": "A", "_disabled_": "$not @on"}, {"_target_": "B", "_disabled_": True}]
    assert Config({"steps": steps, "on": True}, HERE).get("steps") == [Component("A")]


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('true')",
        "$open('/etc/passwd').read()",
        "$().__class__.__bases__[0].__subclasses__()",
        "$(lambda: 1)()",
        "$[x for x in (1, 2)]",
        "$import os",
        "$exec('1')",
        "$torch.load('x')",
        "$torch.__builtins__",
        "$numpy.fromfile('x')",
        "$'{0.__class__}'.format(1)",
        "$'%1000000000d' % 1",
        "$f'{1}'",
        "$9 ** 9 ** 9",
        "$'a' * 10 ** 9",
        "$[0] * 99999999",
        "$2 ** 60 * 2 ** 60",
        "$(x := 1)",
        "$1 / 0",
        "$@missing",
        "$__reference_0",
        "$" + "(" * 500,
        "$" + "-" * 1999 + "1",
        "$" + "1+" * 2000 + "1",
        "%other.json#key",
        "$b'a' * 10",
        "$'user@x'",
        "$str([[1], [2]])",
        "$sum([[1]], [])",
    ],
)
def test_what_would_need_execution_or_has_no_value_is_refused(expression: str) -> None:
    with pytest.raises(SpecError, match=r"configs/inference\.json"):
        value(expression)


def test_a_config_of_too_many_entries_or_references_is_stopped() -> None:
    with pytest.raises(SpecError, match="entries"):
        value([[0] * 1000] * 200)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"itself|nested"):
        Config({"a": "@b#x", "b": "@a#x"}, HERE).get("a#x")


def test_references_in_a_circle_are_refused() -> None:
    with pytest.raises(SpecError, match="refers to itself"):
        value("@y", y="$@x + 1")


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"x":' + "[" * 90 + "]" * 90 + "}", encoding="utf-8")
    with pytest.raises(SpecError, match="nested"):
        read_config(path).get("x")


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00", '{"a": 1}x'])
def test_a_file_that_is_no_json_object_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "inference.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SpecError, match=r"inference\.json"):
        read_config(path)


def test_the_zoos_segmentation_configs_are_read_without_evaluation(shared_data: Path) -> None:
    for name in ("spleen_ct_segmentation", "wholeBody_ct_segmentation", "swin_unetr_btcv_segmentation"):
        config = read_config(shared_data / "monai_bundles" / name / "configs" / "inference.json")
        assert isinstance(config.get("network"), Component)
        assert config.get("inferer").name == "SlidingWindowInferer"
        assert config.get("preprocessing").arguments["transforms"][0].name == "LoadImaged"
