"""Export: what other programs get says what the run says, and is refused where it wouldn't."""

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import onecycle
from onecycle import cli, files
from onecycle.datasets import digits
from onecycle.datasets.noise import noise
from onecycle.errors import DiskError, MissingExtraError, OnecycleError, RecipeError
from onecycle.evaluation.temperature import with_temperature
from onecycle.model.build import build
from onecycle.recipe.schema import parse
from onecycle.use import formats, proof

EXAMPLE = Path(__file__).parent.parent / "examples" / "onnx_predict.py"
FORMATS = ("onnx", "pt2", "safetensors")
PLAIN = """
import sys, numpy as np, onnxruntime
pixels = np.load("pixels.npy")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
found = [session.run(None, {"pixels": pixels[i:j]})[0] for i, j in ((0, 1), (1, 8), (8, None))]
np.save("found.npy", np.concatenate(found))
sys.exit("onecycle" in sys.modules or "torch" in sys.modules)
"""


@pytest.fixture(scope="session")
def exported(digits_run, tmp_path_factory):
    """The digits run in each format."""
    place = tmp_path_factory.mktemp("exported")
    return {
        form: onecycle.export(digits_run, form, place / f"model.{form}", threads=1, quiet=True)
        for form in FORMATS
    }


@pytest.fixture(scope="session")
def expected(digits_run, exported):
    """Calibrated probabilities of the test images, by the stored predictions."""
    temperature = float(exported["onnx"].metadata["temperature"])
    return with_temperature(digits_run.probabilities, temperature)


@pytest.fixture
def same_file(exported, monkeypatch):
    """Exporting gives the ONNX file that is there, without waiting for it."""
    content = exported["onnx"].path.read_bytes()
    monkeypatch.setattr(formats, "packed", lambda *_: content)


def test_onnx_gives_the_runs_probabilities_without_onecycle(exported, expected, tmp_path):
    np.save(tmp_path / "pixels.npy", digits.load().test.images())
    subprocess.run([sys.executable, "-c", PLAIN, exported["onnx"].path], check=True)
    np.testing.assert_allclose(np.load("found.npy"), expected, atol=2e-5)
    assert exported["onnx"].checked_on == "360 of 360 test images of digits"
    found = np.abs(np.load("found.npy") - expected).max()
    assert exported["onnx"].largest_difference == pytest.approx(found, abs=1e-6)


def test_onnx_takes_plain_pixels_and_norms_are_plain(exported):
    model = onnx.load(exported["onnx"].path)
    (pixels,), (probabilities,) = model.graph.input, model.graph.output
    shape = [size.dim_param or size.dim_value for size in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, shape) == ("pixels", ["batch", 32, 32, 3])
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert probabilities.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == 8 and kinds["Softmax"] == 1
    assert kinds["BatchNormalization"] <= 8 and not {"ReduceMean", "Sqrt"} & set(kinds)
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("form", FORMATS)
def test_no_path_of_this_machine_is_inside(exported, form):
    content = exported[form].path.read_bytes()
    for place in (onecycle.__path__[0], torch.__path__[0]):
        assert place.encode() not in content


def test_pt2_gives_the_runs_probabilities(exported, expected):
    details = {"onecycle.json": ""}
    program = torch.export.load(exported["pt2"].path, extra_files=details).module()
    pixels = torch.from_numpy(digits.load().test.images())
    for part in (slice(0, 1), slice(0, 100)):
        np.testing.assert_allclose(program(pixels[part]).detach(), expected[part], atol=2e-5)
    assert json.loads(details["onecycle.json"]) == exported["pt2"].metadata


def test_safetensors_alone_are_enough(exported, expected):
    with safe_open(exported["safetensors"].path, "pt") as file:
        about = file.metadata()
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    classes = json.loads(about["classes"])
    data = noise(len(classes), int(about["image_size"]))
    network = build(parse(json.loads(about["recipe"]), "metadata").model, data, seed=1)
    network.load_state_dict(weights)
    logits = network.eval()(torch.from_numpy(digits.load().test.images(0, 50)))
    found = (logits / float(about["temperature"])).softmax(1).detach()
    np.testing.assert_allclose(found, expected[:50], atol=2e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_the_file_says_what_it_is(exported, digits_run, form):
    about = exported[form].metadata
    if form == "onnx":
        model = onnx.load(exported[form].path)
        assert {each.key: each.value for each in model.metadata_props} == about
    assert json.loads(about["classes"]) == [str(i) for i in range(10)]
    assert about["recipe_digest"] == digits_run.summary["recipe_digest"]
    assert about["calibration"].startswith("calibrated: temperature")
    assert "no test-time augmentation" in about["output"] and "uint8" in about["input"]
    latency = exported[form].latency
    assert set(latency) == {form, "pytorch"}
    assert all(0 < times["1"] < times["64"] for times in latency.values())
    assert exported[form].bytes == exported[form].path.stat().st_size


def test_the_example_names_the_class(exported, digits_run):
    test = digits.load().test
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of upright
    turned = Image.fromarray(test.images(0, 1)[0]).transpose(Image.Transpose.ROTATE_90)
    turned.resize((96, 96), Image.Resampling.NEAREST).save("turned.png", exif=exif)
    command = [sys.executable, EXAMPLE, exported["onnx"].path, "turned.png"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (one,) = digits_run.predict("turned.png", threads=1)
    assert out.split()[0] == one.label == str(test.labels[0])
    assert float(out.split()[1].strip("%")) == pytest.approx(100 * one.probability, abs=1)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save("clear.png")
    command[-1] = "clear.png"
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (clear,) = digits_run.predict("clear.png", threads=1)
    assert out.split()[0] == clear.label
    assert float(out.split()[1].strip("%")) == pytest.approx(100 * clear.probability, abs=0.1)
    lines = EXAMPLE.read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 15


def with_another_class(content):
    """The ONNX file with the last layer's rows in another order."""
    model = onnx.load_from_string(content)
    weights = {each.name: each for each in model.graph.initializer}
    last = weights["network.fc.weight"]
    values = onnx.numpy_helper.to_array(last)
    last.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=0), last.name))
    return model.SerializeToString()


def with_nan(content):
    model = onnx.load_from_string(content)
    mean = next(each for each in model.graph.initializer if each.name.endswith("normalize.mean"))
    mean.raw_data = struct.pack("<3f", *[float("nan")] * 3)
    return model.SerializeToString()


@pytest.mark.parametrize("spoil", [with_another_class, with_nan])
def test_another_answer_than_the_runs_is_refused(digits_run, exported, monkeypatch, spoil):
    content = spoil(exported["onnx"].path.read_bytes())
    monkeypatch.setattr(formats, "packed", lambda *_: content)
    with pytest.raises(OnecycleError, match=r"another class than the run on .*nothing was") as said:
        onecycle.export(digits_run, out="wrong.onnx", threads=1, quiet=True)
    assert said.value.exit_code == 1
    assert not Path("wrong.onnx").exists()


def test_only_a_narrow_margin_excuses_another_class():
    def check(margin):
        expected = np.array([[0.5 + margin / 2, 0.5 - margin / 2]])
        sample = proof.Sample(np.zeros((1, 4, 4, 3), np.uint8), expected, "one")
        return proof.largest_difference(lambda _: np.array([[0.4999, 0.5001]], np.float32), sample)

    assert check(0.5e-4) == pytest.approx(0.000125, abs=1e-6)
    with pytest.raises(OnecycleError, match="on 1 of one"):
        check(2e-4)


def test_noise_is_used_and_said_where_the_data_is_gone(digits_run, same_file, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for path in digits_run.path.iterdir():
        (run / path.name).symlink_to(path)
    made = files.read_json(run / "environment.json")
    made["data"]["source"] = str(tmp_path / "gone")
    (run / "environment.json").unlink()
    files.write_json(run / "environment.json", made)
    (run / "evaluation" / "test-flip").mkdir(parents=True)
    found = onecycle.export(run, threads=1)
    assert found.path == run / "export" / "model.onnx" and found.path.exists()
    assert found.checked_on.startswith("64 images of noise") and "gone" in found.checked_on
    assert found.largest_difference < 1e-5
    err = capsys.readouterr().err
    assert "judged with flip test-time augmentation, 2 views; the file has one view" in err


def test_the_command_prints_what_was_seen(digits_run, same_file, capsys, monkeypatch):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["onecycle", "export", str(digits_run.path), *arguments])
        cli.main()
        return capsys.readouterr()

    out, err = command("--out", "a.onnx", "--threads", "1", "--json", "-q")
    found = json.loads(out)
    assert err == "" and found["path"] == "a.onnx" and found["latency"]["onnx"]["64"] > 0
    out, err = command("--out", "a.onnx", "--threads", "1")
    assert "no other class, largest difference" in out and "batch 64:" in out
    assert "exporting" in err


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"format": "onx"}, RecipeError, "did you mean 'onnx'"),
        ({"out": "model.pt2"}, RecipeError, r"ends in \.onnx"),
        ({"out": "."}, RecipeError, "is a folder"),
        ({"out": "file/model.onnx"}, DiskError, "cannot make the folder file"),
    ],
    ids=str,
)
def test_wrong_use_is_named(digits_run, same_file, options, error, said):
    Path("file").touch()
    with pytest.raises(error, match=said):
        onecycle.export(digits_run, threads=1, quiet=True, **options)


def test_a_missing_library_is_named(digits_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript: pip install 'onecycle\[export\]'"):
        onecycle.export(digits_run, threads=1, quiet=True)


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(RecipeError, match="not finished"):
        onecycle.export(tmp_path)
