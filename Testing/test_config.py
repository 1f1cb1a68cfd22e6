"""A bundle's config is worked out as data, and whatever would need execution is refused."""

import sys
from pathlib import Path, PurePosixPath

import pytest

from MedAILib.config import Config, read_config
from MedAILib.config_values import Component, Lambda, Name, Stored, Unknown
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
        ("$[i + 1 for i in range(4) if i != 2]", [1, 2, 4]),
        ("$[(a, b) for a, b in zip(@channels, [1, 2, 3])]", [(16, 1), (32, 2), (64, 3)]),
        ("${'n' + str(i): [i] * 2 for i in range(2)}", {"n0": [0, 0], "n1": [1, 1]}),
        ("$sorted(set([i for i in range(5)]) - set([1, 3]))", [0, 2, 4]),
        ("$list(range(2, 4)) + [9]", [2, 3, 9]),
        ("$os.path.join(@root, 'models', @name)", "./models/model.pt"),
        ("$Path(@root) / 'models' / @name", PurePosixPath("models/model.pt")),
        ("$str(pathlib.Path(@root) / @name)", "model.pt"),
        ("$monai.utils.CommonKeys.PRED", "pred"),
        ("$copy.deepcopy(@channels)", [16, 32, 64]),
        ("$torch.device('cuda')", "cuda"),
        ("$1.0 - float(80) / float(@channels[0])", -4.0),
        ("$((@channels[0] - 8) // 2,) * 4", (4, 4, 4, 4)),
        ("$torch.from_numpy(torch.load(@name, map_location='cpu')['a'])", Stored("model.pt", ("a",))),
        (
            "$monai.networks.nets.vista3d132(in_channels=1)",
            Component("monai.networks.nets.vista3d132", {"in_channels": 1}),
        ),
        ("$lambda x : x[1:]", Lambda("lambda x: x[1:]")),
        ("$lambda x: x if @high else 0", Lambda("lambda x: x if @high else 0")),
        ("%nested#deep", ["a"]),
        ("%channels#1", 32),
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
        "$import os",
        "$exec('1')",
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
        "%/etc/other.json#key",
        "%../other.yaml",
        "%missing",
        "$[i for i in range(999) for j in range(999)]",
        "$[i for i in range(10 ** 9)]",
        "$@wide == @wide",
        "$[x.append for x in ([],)]",
        "$[print for print in (1,)][0](2)",
        "$range(3).__class__",
        "$os.system('true')",
        "$os.path.expanduser('~')",
        "$Path('/etc/passwd').read_text()",
        "$torch.load('x').items()",
        "$(lambda x: x)(1)",
        "$list(map(print, [1]))",
        "$b'a' * 10",
        "$'user@x'",
        "$str([[1], [2]])",
        "$sum([[1]], [])",
    ],
)
def test_what_would_need_execution_or_has_no_value_is_refused(expression: str) -> None:
    wide: list[object] = [1]
    for _ in range(40):
        wide = [wide, wide]
    with pytest.raises(SpecError, match=r"configs/(inference|other)\.json|more than"):
        value(expression, wide=wide)


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


def test_a_number_of_thousands_of_digits_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text('{"version": ' + "9" * 5000 + "}", encoding="utf-8")
    if hasattr(sys, "get_int_max_str_digits"):  # older Pythons read it
        with pytest.raises(SpecError, match=r"metadata\.json.* thousands of digits"):
            read_config(path)


def test_a_file_that_windows_marked_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text('{"version": 3}', encoding="utf-8-sig")
    assert read_config(path).get("version") == 3


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


def test_a_file_of_yaml_is_read_as_its_twin_of_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("net: {_target_: UNet, out_channels: '@n'}\nn: $1 + 1\n", encoding="utf-8")
    assert read_config(tmp_path / "a.yaml").get("net") == Component("UNet", {"out_channels": 2})


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['true']",
        "a: &x [1, 2]\nb: [*x, *x]",
        "- 1",
        "a: [",
        "a: !include other.yaml",
        "a: " + "[" * 5000,
    ],
)
def test_yaml_that_is_more_than_plain_data_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"a\.yaml"):
        read_config(tmp_path / "a.yaml")


def test_a_macro_copies_an_entry_of_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "nets.json").write_text('{"small": {"_target_": "UNet", "out_channels": "@n"}}', encoding="utf-8")
    (tmp_path / "a.yaml").write_text("net: '%nets.json#small'\nn: 3\n", encoding="utf-8")
    assert read_config(tmp_path / "a.yaml").get("net") == Component("UNet", {"out_channels": 3})


def test_what_nobody_asks_for_need_not_be_worked_out() -> None:
    step = value({"_target_": "SaveImaged", "keys": "pred", "writer": "$open('x')"})  # type: ignore[arg-type]
    assert isinstance(step, Component) and step.arguments["keys"] == "pred"
    assert isinstance(step.arguments["writer"], Unknown) and "'open'" in step.arguments["writer"].reason


@pytest.mark.parametrize("entry", [{"_mode_": "callable"}, {"_requires_": "$print(1)"}])
def test_a_component_that_would_be_executed_in_passing_is_refused(entry: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="UNet"):
        value({"_target_": "UNet", **entry})  # type: ignore[arg-type]
