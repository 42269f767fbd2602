import importlib.util
import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def pytest_runtest_logreport(report):
    """Say at once what failed and why: a run that is stopped early would keep it to itself."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext[-3000:]}", flush=True)


def small_net(classes: int = 1, channels: int = 3) -> nn.Module:
    """A convolutional network with batch norm and dropout, random but fixed weights, in training mode like a fresh one."""
    torch.manual_seed(7)
    net = nn.Sequential(nn.Conv2d(channels, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
                        nn.Conv2d(8, classes, 3, padding=1))
    net[1].running_mean.normal_(0, 0.3)
    net[1].running_var.uniform_(0.5, 2)
    net[4].weight.data *= 3
    return net


def plain_net(width: int = 6, classes: int = 1, between: type[nn.Module] = nn.Tanh) -> nn.Module:
    """Two convolutions and nothing else that could differ between two runs, random but fixed weights, in eval mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), between(), nn.Conv2d(width, classes, 3, padding=1)).eval()


def noise_image(side: int, examples: int = 1) -> torch.Tensor:
    """Random but fixed inputs (B,3,S,S)."""
    return torch.randn(examples, 3, side, side, generator=torch.Generator().manual_seed(1))


@contextmanager
def largest_file(size: int):
    """As on a full disk: no file can grow beyond a size."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def load_tool(name: str) -> ModuleType:
    """A module of `tools`, which is no package; what it imports of its neighbours is found as when it is run."""
    tools = Path(__file__).parent.parent / "tools"
    found = importlib.util.spec_from_file_location(name, tools / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tools)
        found.loader.exec_module(module)
    return module


class Encoded(nn.Module):
    """A network whose encoder halves the map, as the CAMs expect of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return torch.nn.functional.interpolate(self.head(self.encoder(x)), scale_factor=2.0)


class Recorder(nn.Module):
    """Keeps every input that it is given."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x, *extra):
        self.seen.append(x.detach().clone())
        return self.net(x)


@pytest.fixture
def aerial() -> Path:
    """The folder of real tiles."""
    folder = os.environ.get("ENTROPY_CAPTUM_DATA")
    if not folder:
        pytest.skip("ENTROPY_CAPTUM_DATA is not set: it names the folder of real tiles")
    return Path(folder)
