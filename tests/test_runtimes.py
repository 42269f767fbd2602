"""Networks that other programs run: the same scores as in torch, whatever the file looks like, or one sentence."""
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from entropy_captum import EntropyCentric, faster
from entropy_captum.adapter import adapt
from entropy_captum.card import ModelCard, to_inputs
from entropy_captum.drawn import procedural_scene
from entropy_captum.forward import as_forward
from entropy_captum.models import load_model
from entropy_captum.runtimes import OnnxNetwork, RuntimeForward, export_onnx, find_layout, load_onnx

MEAN, STD, SIDE = 0.45, 0.22, 48
CARD = {"scale": 1 / 255, "mean": MEAN, "std": STD}
# Slow, since nearly all need the files, which take seconds to export.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*takes batches of")]


class Small(nn.Module):
    """Pixels (B,3,H,W), standardised, to two classes (B,2,H,W)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Tanh())
        self.head = nn.Conv2d(8, 2, 1)
        self.head.bias.data[1] += 0.25  # so that it predicts both classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 20 * self.head(self.encoder(x))


class Raw(nn.Module):
    """The same network for uint8 pixels, channels last, on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(((x.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Several(nn.Module):
    """Several outputs of which one is the map of scores."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = self.inner(x)
        return scores[:, :1].sigmoid(), scores, scores.mean((2, 3))


class Flat(nn.Module):
    """One class, without an axis for it: the difference of the two, whose sigmoid is their softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.inner(x)
        return scores[:, 1] - scores[:, 0]


def write(network: nn.Module, path: Path, example: torch.Tensor, outputs: tuple[str, ...] = ("scores",),
          free: bool = False) -> Path:
    """An ONNX file of a network for examples (B, ...), or for any number of them, by torch's old exporter, which is fast."""
    axes = {name: {0: "batch"} for name in ("pixels", *outputs)} if free else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), (example,), path, dynamo=False, input_names=["pixels"], output_names=list(outputs),
                          dynamic_axes=axes)
    return path


def write_new(network: nn.Module, path: Path, example: torch.Tensor) -> Path:
    """An ONNX file of a network for any number of examples, by torch's exporter as it is now."""
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.onnx.export(program, dynamo=True, verbose=False, input_names=["pixels"], output_names=["scores"]).save(path)
    return path


def fixed(source: Path, path: Path, batch: int) -> Path:
    """The same network for a fixed batch."""
    model = onnx.load(source)
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path


def turned(source: Path, path: Path, axes: list[int]) -> Path:
    """The same network with the axes of its output in another order, as converters leave it."""
    model = onnx.load(source)
    (port,) = model.graph.output
    model.graph.node.append(helper.make_node("Transpose", [port.name], ["turned"], perm=axes))
    shape = [port.type.tensor_type.shape.dim[i] for i in axes]
    model.graph.output[0].CopyFrom(value("turned", [d.dim_value or d.dim_param for d in shape]))
    onnx.save(model, path)
    return path


def cast(source: Path, path: Path) -> Path:
    """The same network for numbers of double precision, of which onnxruntime has no convolutions."""
    model = onnx.load(source)
    model.graph.node.insert(0, helper.make_node("Cast", ["doubles"], [model.graph.input[0].name], to=TensorProto.FLOAT))
    model.graph.input[0].CopyFrom(value("doubles", ["batch", 3, SIDE, SIDE], TensorProto.DOUBLE))
    onnx.save(model, path)
    return path


def divided(source: Path, path: Path) -> Path:
    """The same network with its weights in a file beside it."""
    onnx.save(onnx.load(source), path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path


KINDS = ["free", "one", "three", "nhwc", "mixed", "turned", "double", "several", "flat", "beside", "openvino"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict]]:
    """A file of each kind with what its card must say."""
    folder, x = tmp_path_factory.mktemp("models"), torch.rand(3, 3, SIDE, SIDE)
    raw = (255 * x).permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    made = {"free": (write_new(Small(), folder / "free.onnx", x), CARD),
            "one": (write(Small(), folder / "one.onnx", x[:1]), CARD),
            "three": (fixed(folder / "free.onnx", folder / "three.onnx", 3), CARD),
            "nhwc": (write(Raw(), folder / "nhwc.onnx", raw[:1]), {}),
            "mixed": (turned(folder / "nhwc.onnx", folder / "mixed.onnx", [0, 3, 1, 2]), {}),
            "turned": (turned(folder / "free.onnx", folder / "turned.onnx", [0, 2, 3, 1]), CARD),
            "double": (cast(folder / "free.onnx", folder / "double.onnx"), CARD),
            "several": (write(Several(), folder / "several.onnx", x, ("aux", "scores", "pooled"), free=True),
                        CARD | {"output": "scores"}),
            "flat": (write(Flat(), folder / "flat.onnx", x, free=True), CARD),
            "beside": (divided(folder / "free.onnx", folder / "beside.onnx"), CARD)}
    openvino.save_model(openvino.Core().read_model(made["free"][0]), folder / "small.xml", compress_to_fp16=False)
    return made | {"openvino": (folder / "small.xml", CARD)}


def scores_of(model, target: int | None, batch: int = 8) -> torch.Tensor:
    image = procedural_scene(2, SIDE).image
    region = torch.zeros(SIDE, SIDE)
    region[10:30, 12:36] = 1
    return EntropyCentric(model, inference="full").estimate(
        to_inputs(image, ModelCard()), region=region, target=target, n_samples=4, grid_size=3, perturbations_per_eval=batch).scores


def by_hand(whole: bool) -> torch.Tensor:
    """The scores of the network in torch, standardised by hand, of pixels that are rounded or not."""
    def plain(x: torch.Tensor) -> torch.Tensor:
        pixels = (x.double() + 1) * 127.5
        return Small()((((pixels.round() if whole else pixels) / 255 - MEAN) / STD).float())
    return scores_of(plain, 1)


@pytest.fixture(scope="module")
def wanted() -> torch.Tensor:
    return by_hand(whole=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_any_file_has_the_scores_that_it_has_in_torch(files, wanted, kind: str) -> None:
    path, card = files[kind]
    model = load_model(path, card)
    want = by_hand(whole=True) if kind in ("nhwc", "mixed") else wanted
    scores = scores_of(model, None if kind == "flat" else 1)
    assert float(want.max()) > 0.01 and torch.allclose(scores, want, atol=1e-6), (scores - want).abs().max()


def test_another_program_reads_the_same_onnx_file(files, wanted) -> None:
    path, card = files["three"]
    model = load_model(path, card, runtime="openvino")
    assert type(model.function).__name__ == "OpenVinoNetwork" and torch.allclose(scores_of(model, 1), wanted, atol=1e-4)


def test_what_the_axes_say_is_in_the_card_and_a_fixed_batch_is_said_once(files) -> None:
    cards = {kind: load_model(*files[kind]).card for kind in ("free", "three", "nhwc", "double")}
    assert cards["nhwc"].layout == "NHWC" and cards["nhwc"].dtype == "uint8" and cards["nhwc"].scale == 1
    assert cards["free"].layout == "NCHW" and cards["free"].size == (SIDE, SIDE) and cards["double"].dtype == "float64"
    with pytest.warns(UserWarning, match=r"three\.onnx: takes batches of 3 only") as caught:
        model = load_model(*files["three"])
        model(torch.zeros(2, 3, SIDE, SIDE))
        model(torch.zeros(4, 3, SIDE, SIDE))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(*files["free"])


@pytest.mark.parametrize("shape, layout", [
    ((None, 3, None, None), "NCHW"), ((1, None, None, 3), "NHWC"), ((1, 224, 96, 96), "NCHW"), ((1, 96, 96, 224), "NHWC"),
    ((1, 4, 96, 128), "NCHW"), ((1, 96, 128, 4), "NHWC"), ((1, 64, 64, 64), None), ((1, 48, 64, 96), None), ((None,) * 4, None)])
def test_the_layout_is_told_from_the_axes_or_not_at_all(shape: tuple, layout: str | None) -> None:
    assert find_layout(shape) == layout


def test_the_device_and_the_number_of_outputs_stay(files) -> None:
    network, _ = load_onnx(files["several"][0])
    found = network(torch.rand(2, 3, SIDE, SIDE))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "aux": (2, 1, SIDE, SIDE), "scores": (2, 2, SIDE, SIDE), "pooled": (2, 2)}


def test_keys_change_with_the_weights_those_in_a_file_beside_too(files, tmp_path: Path) -> None:
    x = torch.rand(3, 3, SIDE, SIDE)
    free, beside = (OnnxNetwork(files[kind][0]) for kind in ("free", "beside"))
    assert OnnxNetwork(shutil.copy(files["free"][0], tmp_path / "copy.onnx")).key == free.key
    assert OnnxNetwork(write(Small(1), tmp_path / "other.onnx", x, free=True)).key != free.key
    data = files["beside"][0].with_name("beside.onnx.data")
    for file in (files["beside"][0], data):
        shutil.copy(file, tmp_path)
    content = bytearray((tmp_path / data.name).read_bytes())
    content[40] ^= 1
    (tmp_path / data.name).write_bytes(content)
    assert OnnxNetwork(tmp_path / "beside.onnx").key != beside.key
    assert load_model(files["free"][0], CARD).key != load_model(files["free"][0], CARD | {"mean": 0.5}).key


def test_a_model_goes_to_another_process_and_notices_that_its_file_has_changed(files, tmp_path: Path) -> None:
    path = Path(shutil.copy(files["free"][0], tmp_path / "free.onnx"))
    model, x = load_model(path, CARD), torch.rand(2, 3, SIDE, SIDE)
    torch.save(x, tmp_path / "x.pt")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = "import pickle, torch; x = torch.load('x.pt'); torch.save(pickle.load(open('model.pickle', 'rb'))(x), 'y.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert torch.allclose(torch.load(tmp_path / "y.pt"), model(x), atol=1e-6)
    shutil.copy(files["flat"][0], path)
    with pytest.raises(ValueError, match=r"free\.onnx: has changed since it was loaded"):
        pickle.loads((tmp_path / "model.pickle").read_bytes())(x)


def describe(path: Path, **metadata: object) -> Path:
    model = onnx.load(path)
    helper.set_model_props(model, {key: said if isinstance(said, str) else json.dumps(said) for key, said in metadata.items()})
    onnx.save(model, path)
    return path


def test_what_a_qgis_plugin_wrote_into_the_file_is_read(files, wanted, tmp_path: Path) -> None:
    path = describe(Path(shutil.copy(files["free"][0], tmp_path)), model_type="Segmentor", class_names={0: "ground", 1: "roof"},
                    standardization_mean=[MEAN] * 3, standardization_std=[STD] * 3, resolution=10, tile_size=SIDE)
    model = load_model(path)
    assert model.card.classes == ("ground", "roof") and model.card.activation == "auto"
    assert torch.allclose(scores_of(model, "roof"), wanted, atol=1e-4)
    # Names that are not as many as the map's channels are no classes of it.
    assert load_model(describe(path, model_type="Segmentor", class_names="{0: 'a', 1: 'b', 2: 'c'}")).card.classes == ()


def test_an_exported_network_brings_its_card(tmp_path: Path) -> None:
    card = ModelCard(scale=1 / 255, mean=(MEAN,) * 3, std=(STD,) * 3, bands=("blue", "green", "red"), classes=("ground", "roof"),
                     multiple=32)
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Small()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.flip(1))
    model = load_model(export_onnx(adapt(Turned(), card), tmp_path / "own.onnx", (SIDE, SIDE)))
    assert model.card.classes == card.classes and model.card.bands == ("red", "green", "blue")
    assert torch.allclose(scores_of(model, "roof"), scores_of(adapt(Turned(), card), 1), atol=1e-4)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_torch_network_run_by_another_program_has_the_same_scores(wanted, runtime: str) -> None:
    torch_model = load_model(Small(), CARD)
    model = load_model(Small(), CARD, runtime=runtime)
    assert isinstance(model, RuntimeForward)
    assert torch.allclose(scores_of(model, 1), wanted, atol=1e-4)
    assert torch.allclose(scores_of(pickle.loads(pickle.dumps(model)), 1, 3), wanted, atol=1e-4)
    assert model.programs[SIDE, SIDE] is not None and model.key != as_forward(torch_model).key


def methods_of(model, names: list[str]) -> dict[str, torch.Tensor]:
    from entropy_captum.methods import ask_of_image, leave_out, run_methods
    from entropy_captum.question import Budget
    region = torch.zeros(1, SIDE, SIDE)
    region[:, 10:30, 12:36] = 1
    question = ask_of_image(model, to_inputs(procedural_scene(2, SIDE).image, ModelCard()), region, target=0, grid_size=3)
    return {name: maps.maps for name, maps in run_methods(question, Budget(2, 4), leave_out(question, names)).items()}


def test_methods_that_look_into_the_network_meet_the_torch_one(files) -> None:
    names = ["entropy", "grad-cam", "score-cam", "input-x-gradient", "occlusion", "rise"]
    ours, theirs = (methods_of(load_model(Small(), CARD, runtime=runtime), names) for runtime in ("onnxruntime", None))
    assert list(ours) == names
    for name in names:
        assert float(theirs[name].abs().max()) > 0 and torch.allclose(ours[name], theirs[name], atol=1e-4), name
    with pytest.warns(UserWarning, match="is left out") as caught:
        assert list(methods_of(load_model(*files["free"]), names)) == ["entropy", "occlusion", "rise"]
    assert len(caught) == 3


def test_incremental_inference_still_serves_a_network_that_another_program_runs(wanted) -> None:
    region = torch.zeros(SIDE, SIDE)
    region[10:30, 12:36] = 1
    method = EntropyCentric(load_model(Small(), CARD, runtime="onnxruntime"), inference="incremental")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = method.estimate(to_inputs(procedural_scene(2, SIDE).image, ModelCard()), region=region, target=1, n_samples=4,
                                   grid_size=3)
    assert torch.allclose(estimate.scores, wanted, atol=1e-4)


def test_the_planner_weighs_a_plan_against_the_faster_forwards() -> None:
    from entropy_captum.inference import FullInference
    from entropy_captum.planning import propose
    from entropy_captum.question import Budget, Question
    question = Question(load_model(Small(), CARD, runtime="onnxruntime"), torch.rand(1, 3, SIDE, SIDE),
                        torch.ones(1, SIDE, SIDE), target=1, grid_size=3)
    full = FullInference(question.network)
    plain = propose(full, question.perturbation, question.regions, Budget(4))
    question.network.speed = 4.0
    assert propose(full, question.perturbation, question.regions, Budget(4)).full == pytest.approx(plain.full / 4)


def test_weights_that_are_changed_are_exported_anew() -> None:
    model, x = load_model(Small(), CARD, runtime="onnxruntime"), torch.rand(1, 3, SIDE, SIDE)
    before = model(x)
    with torch.no_grad():
        model.network.model.head.weight.mul_(2)
        assert torch.allclose(model(x), model.network(x), atol=1e-4) and not torch.allclose(model(x), before, atol=1e-2)
    model.network.model.head.weight.data = torch.zeros(2, 8, 1, 1)
    assert float(model(x).std(dim=(2, 3)).max()) == 0


class Branching(nn.Module):
    """No exporter can follow it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2] if float(x.mean()) > 0.1 else x[:, 1:]


def test_torch_goes_on_where_a_network_does_not_export() -> None:
    model, x = load_model(Branching(), CARD, runtime="onnxruntime"), torch.rand(2, 3, SIDE, SIDE)
    with pytest.warns(UserWarning, match="not possible, going on with torch: Branching cannot be exported to ONNX") as caught:
        assert torch.equal(model(x), adapt(Branching(), model.card)(x))
        model(x)
    assert len(caught) == 1


def test_torch_goes_on_where_the_program_gives_other_scores(monkeypatch) -> None:
    start = faster.SESSIONS["onnxruntime"]
    def wrong(path: Path):
        session = start(path)
        return lambda values: [1.01 * out for out in session(values)]
    monkeypatch.setitem(faster.SESSIONS, "onnxruntime", wrong)
    model, x = load_model(Small(), CARD, runtime="onnxruntime"), torch.rand(1, 3, SIDE, SIDE)
    with pytest.warns(UserWarning, match="going on with torch: its logits differ from torch's by"):
        assert torch.equal(model(x), model.module(x))


def graph(inputs: list, nodes: list, outputs: list, path: Path, opset: int = 17, **options) -> Path:
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def value(name: str, shape: list, kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def make_text(folder: Path, files) -> Path:
    (folder / "text.onnx").write_text("these are no weights")
    return folder / "text.onnx"


def make_empty(folder: Path, files) -> Path:
    (folder / "empty.onnx").write_bytes(b"")
    return folder / "empty.onnx"


def make_alone(folder: Path, files) -> Path:
    return Path(shutil.copy(files["beside"][0], folder))


def make_xml_alone(folder: Path, files) -> Path:
    return Path(shutil.copy(files["openvino"][0], folder))


def make_xml_text(folder: Path, files) -> Path:
    (folder / "text.bin").write_bytes(b"")
    (folder / "text.xml").write_text("<tiles/>")
    return folder / "text.xml"


def make_two(folder: Path, files) -> Path:
    return graph([value("before", [1, 3, 8, 8]), value("after", ["n", 3, 8, 8])],
                 [helper.make_node("Sub", ["before", "after"], ["change"])], [value("change", [1, 3, 8, 8])], folder / "two.onnx")


def make_new(folder: Path, files) -> Path:
    return graph([value("x", [1, 3, 8, 8])], [helper.make_node("Relu", ["x"], ["y"])], [value("y", [1, 3, 8, 8])],
                 folder / "new.onnx", opset=99)


def make_words(folder: Path, files) -> Path:
    return graph([value("tokens", [1, 77], TensorProto.INT64)], [helper.make_node("Identity", ["tokens"], ["y"])],
                 [value("y", [1, 77], TensorProto.INT64)], folder / "words.onnx")


def make_cube(folder: Path, files) -> Path:
    return graph([value("x", [1, 64, 64, 64])], [helper.make_node("Relu", ["x"], ["y"])], [value("y", [1, 64, 64, 64])],
                 folder / "cube.onnx")


def make_int(folder: Path, files) -> Path:
    return graph([value("x", [1, 3, 8, 8], TensorProto.INT64)], [helper.make_node("Identity", ["x"], ["y"])],
                 [value("y", [1, 3, 8, 8], TensorProto.INT64)], folder / "int.onnx")


def make_detector(folder: Path, files) -> Path:
    return describe(Path(shutil.copy(files["free"][0], folder / "boxes.onnx")), model_type="Detector", det_conf=0.5)


@pytest.mark.parametrize("make, message", [
    (make_text, r"text\.onnx: no ONNX model can be read from it"), (make_empty, r"empty\.onnx: no ONNX model can be read from it"),
    (make_alone, r"beside\.onnx: its weights are in .*beside\.onnx\.data, which is not there"),
    (make_xml_alone, r"small\.xml: its weights are in .*small\.bin, which is not there"),
    (make_xml_text, r"text\.xml: OpenVINO reads no model from it"),
    (make_two, r"two\.onnx: takes 2 inputs, before \(1, 3, 8, 8\), after \(any, 3, 8, 8\); expected one"),
    (make_new, r"new\.onnx: onnxruntime cannot run it .*opset"),
    (make_words, r"words\.onnx: takes tokens \(1, 77\), expected images"),
    (make_cube, r"cube\.onnx: model card: layout must be one of NCHW, NHWC, got None"),
    (make_int, r"int\.onnx: takes x \(1, 3, 8, 8\) of int64, expected"),
    (make_detector, r"boxes\.onnx: its metadata says Detector, which returns no score map")])
def test_a_file_that_is_no_network_of_one_image_is_refused_in_a_line(files, tmp_path: Path, make, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_model(make(tmp_path, files), {"scale": 1})
    assert "\n" not in str(caught.value)


def test_wrong_bands_sizes_classes_outputs_and_runtimes_are_named(files) -> None:
    with pytest.raises(ValueError, match="nothing says what pixel values the model takes"):
        load_model(files["free"][0])
    network, _ = load_onnx(files["free"][0])
    with pytest.raises(ValueError, match=r"takes pixels \(any, 3, 48, 48\), got inputs of shape \(1, 4, 48, 48\)"):
        network(torch.zeros(1, 4, SIDE, SIDE))
    with pytest.raises(ValueError, match="the model has no output 'masks'; it returns aux, scores, pooled"):
        scores_of(load_model(files["several"][0], CARD | {"output": "masks"}), 1)
    with pytest.raises(ValueError, match="returns 2 channels, its card names 3 classes"):
        scores_of(load_model(files["free"][0], CARD | {"classes": ("a", "b", "c")}), 1)
    with pytest.raises(ValueError, match=r"takes images of 48 x 48 pixels only, got 64 x 64"):
        load_model(files["free"][0], CARD)(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="runtime must be one of torch, onnxruntime, openvino, auto, got 'tensorrt'"):
        load_model(runtime="tensorrt")
    with pytest.raises(ValueError, match="openvino runs torch networks and ONNX files, got the function '<lambda>'"):
        load_model(lambda x: x, CARD, runtime="openvino")
    with pytest.raises(ValueError, match="onnxruntime runs networks on the CPU, got the device cuda"):
        load_model(device="cuda", runtime="onnxruntime")


def test_without_the_extra_the_install_line_is_named(files, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs the package onnxruntime: pip install .*onnxruntime onnx onnxscript"):
        load_model(files["free"][0], CARD)
    monkeypatch.setitem(sys.modules, "openvino", None)
    for source in (files["openvino"][0], Small()):
        with pytest.raises(ImportError, match=r"needs the package openvino: pip install .*openvino"):
            load_model(source, CARD, runtime="openvino")


def test_a_study_of_an_onnx_file_resumes_for_the_same_weights_alone(files, tmp_path: Path) -> None:
    from entropy_captum.drawn import write_scenes
    from entropy_captum.study import evaluate
    from entropy_captum.tiles import Settings
    write_scenes(tmp_path / "tiles" / "drawn", range(2), SIDE)
    settings = Settings(("entropy", "random"), 3, 2, targets=(1,))
    rows = evaluate(load_model(*files["free"]), tmp_path / "tiles", tmp_path / "run", settings, show_progress=False)
    same = evaluate(load_model(Small(), CARD), tmp_path / "tiles", tmp_path / "torch", settings, show_progress=False)
    assert set(rows.status) == {"ok"} and len(rows) == len(same)
    assert np.allclose(rows.gap.astype(float), same.gap.astype(float), atol=0.05)
    runs = tmp_path / "run"
    for card in (CARD, CARD | {"mean": 0.4}):
        evaluate(load_model(files["free"][0], card), tmp_path / "tiles", runs, settings, show_progress=False)
    assert len(list(runs.glob("*/run.json"))) == 2  # the first again, and one of its own for other numbers
    known = json.loads(next(runs.glob("*/run.json")).read_text())["weights"]
    assert isinstance(known, str) and len(known) == 16


@pytest.mark.parametrize("options", [["--model", "FREE", "--model-card", "CARD"],
                                     ["--model", "FREE", "--model-card", "CARD", "--runtime", "openvino"]])
def test_explain_writes_its_files_for_an_onnx_model(files, tmp_path: Path, options: list[str], monkeypatch) -> None:
    from entropy_captum import cli
    Image.fromarray(procedural_scene(2, SIDE).image).save(tmp_path / "tile.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:30, 12:36] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "card.json").write_text(json.dumps(CARD | {"classes": ["ground", "roof"]}))
    given = [{"FREE": str(files["free"][0]), "CARD": str(tmp_path / "card.json")}.get(o, o) for o in options]
    arguments = ["explain", tmp_path / "tile.png", "--mask", tmp_path / "mask.png", "--target", "roof", "--grid-size", "3",
                 "--n-samples", "2", "--out", tmp_path / "out", *given]
    cli.app([str(a) for a in arguments], standalone_mode=False)
    assert {"panel.png", "table.csv", "pixels.json", "entropy.npy", "entropy.png", "entropy-estimate.npz"} <= {
        path.name for path in (tmp_path / "out").iterdir()}
    assert np.isfinite(np.load(tmp_path / "out" / "entropy.npy")).all()


def test_evaluate_runs_a_torch_model_by_another_program(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from entropy_captum import cli
    from entropy_captum.drawn import write_scenes
    write_scenes(tmp_path / "tiles" / "drawn", range(1), SIDE)
    (tmp_path / "nets.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    card = {'scale': 1 / 255, 'mean': 0.5}\n\n    def forward(self, x):\n"
        "        return 20 * (x[:, :1] - x[:, 1:2]) + 1\n")
    done = CliRunner().invoke(cli.app, ["evaluate", "--data", str(tmp_path / "tiles"), "--out", str(tmp_path / "run"), "--methods",
                                        "entropy,random", "--grid-size", "3", "--n-samples", "2", "--runtime", "onnxruntime",
                                        "--model", f"{tmp_path}/nets.py:Net"])
    assert done.exit_code == 0, (done.output, done.exception)
    said = json.loads(next((tmp_path / "run").glob("*/run.json")).read_text())
    assert said["weights"].endswith("-onnxruntime") and any((tmp_path / "run").glob("**/*.parquet"))
