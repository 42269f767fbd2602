"""A captured network: what is rewritten by hand is what torch's own decomposition would have made of it."""
import exactness
import pytest
import torch
from torch import nn

from entropy_captum.capture import functional


def recorded(model, x):
    """A network's exported program for any batch."""
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)


def steps(program):
    """What a program does: its operations with their arguments, other operations by their order."""
    program.graph.eliminate_dead_code()
    order, found = {}, []
    for node in program.graph.nodes:
        name = lambda n: n.name if n.op == "placeholder" else order[n]  # noqa: E731
        found.append((str(node.target), node.op != "placeholder" and torch.fx.node.map_arg((node.args, node.kwargs), name)))
        order[node] = len(order)
    return found


class TwiceRead(nn.Module):
    """Reads what an operation changed in place, by both of its names, after that and before."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        before = x * 2
        y = x.relu_()
        x += y
        z = nn.functional.hardtanh(x, 0, 1, inplace=True)
        return before + x * 3 + y * 5 + z * 7


class OnAView(nn.Module):
    """Changes one half of a tensor in place, then reads the whole."""

    def forward(self, x):
        x = x * 2
        x[:, :1].relu_()
        return x


class OfAnotherType(nn.Module):
    """Adds numbers of another type in place: the result keeps its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("third", torch.full((1, 3, 1, 1), 1 / 3, dtype=torch.float64))

    def forward(self, x):
        x = x * 2
        x += self.third
        return x


class OnItself(nn.Module):
    """Changes its input."""

    def forward(self, x):
        return x.relu_() + x


class WithDropout(nn.Module):
    """Dropout hands out the tensor that it was given."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = x * 2
        self.drop(x).relu_()
        return x


class WithoutStatistics(nn.Sequential):
    """A BatchNorm that has only the batch at hand."""

    def __init__(self):
        super().__init__(nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU(inplace=True))


@pytest.mark.parametrize(("model", "plain"), [
    (TwiceRead(), True), (nn.Sequential(nn.Conv2d(3, 2, 1), nn.SiLU(inplace=True), nn.MaxPool2d(2)), True),
    (OnAView(), False), (OfAnotherType(), False), (OnItself(), False), (WithDropout(), False), (WithoutStatistics(), False)])
def test_operations_in_place_are_rewritten_where_that_is_right_and_left_to_torch_elsewhere(model, plain, monkeypatch):
    calls, decompose = [], torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", lambda p, *a: calls.append(1) or decompose(p, *a))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(x.clone())
        program = functional(recorded(model, x))
        weights = [program.state_dict[s.target] for s in program.graph_signature.input_specs if s.target in program.state_dict]
        *_, found = torch.fx.Interpreter(program.graph_module, graph=program.graph).run(*weights, x.clone())
    assert (not calls) == plain
    assert torch.equal(found, expected)
    assert not any(getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in program.graph.nodes)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenet_v2", "tu-tf_efficientnet_lite0", "efficientnet-b0"])
def test_networks_of_convolutions_are_recorded_as_torch_decomposes_them(encoder, monkeypatch):
    model, x = exactness.build("Unet", encoder, 64), torch.zeros(2, 3, 64, 64)
    program = recorded(model, x)
    theirs = steps(program.run_decompositions({}))
    monkeypatch.delattr(torch.export.ExportedProgram, "run_decompositions")
    assert steps(functional(program)) == theirs
