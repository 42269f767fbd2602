"""Error bars of refined maps: of a single cell those of a plain grid, of every patch honest."""
import numpy as np
import pytest
import torch
from conftest import load_tool, small_net
from scipy.spatial.distance import cdist

from entropy_captum.perturbation import grid_feature_mask
from entropy_captum.question import Budget, Question
from entropy_captum.refine import refined, scored
from entropy_captum.run import Quantity, answer
from entropy_captum.sampling import PickFreeze

BITS = Quantity("bits")
NET = small_net().double()
X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
REGION = torch.zeros(1, 32, 32)
REGION[0, 10:16, 12:20] = 1


@pytest.mark.slow
def test_finest_patches_have_the_errors_of_the_full_grid():
    """Their points are stratified as a plain grid's are, and so is what scatters."""
    search = refined(Question(NET, X, REGION, grid_size="adaptive", finest=1), Budget(8, 50), BITS)
    (found,), (full,) = scored(search, [BITS]), answer(Question(NET, X, REGION, grid_size=32), Budget(8, 50), [BITS])
    alone = [(k, piece[0]) for k, piece in enumerate(search.pieces()) if len(piece) == 1 and piece[0].level == 0]
    columns, cells = [k for k, _ in alone], [32 * patch.row + patch.column for _, patch in alone]
    assert len(alone) >= 10
    torch.testing.assert_close(found.standard_error[0, columns], full.standard_error[0, cells])
    torch.testing.assert_close(found.margin()[0, columns], full.margin()[0, cells])


def test_points_of_larger_patches_are_the_means_of_their_cells():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 5))
    places = PickFreeze(a, b, (np.array([0, 3]), np.array([1]), np.array([2, 4]))).places
    wanted = [(x[0] + x[3], 2 * x[1], x[2] + x[4]) for x in (a, b)]
    np.testing.assert_allclose(places, np.transpose(wanted) / 2)
    np.testing.assert_array_equal(PickFreeze(a, b).places, np.stack([a, b], 1))


def test_errors_of_larger_patches_are_those_of_a_plain_loop():
    cells, halves = grid_feature_mask((8, 8), 4)[0, 0], grid_feature_mask((8, 8), (1, 2))[0, 0]
    (found,) = answer(Question(NET, X[..., :8, :8], torch.ones(1, 8, 8), feature_mask=halves, parts=cells), Budget(8, 3), [BITS])

    def entropy(keep: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            z = NET.eval()(X[..., :8, :8] * torch.from_numpy(keep)[cells])[0, 0].numpy()
        p = 1 / (1 + np.exp(-z))
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

    designs = list(Budget(8).designs(16))
    for half in (0, 1):
        inside = np.arange(16) % 4 // 2 == half
        change = np.array([np.abs(entropy(np.where(inside, d.b, d.a)) - entropy(d.a)).mean() for d in designs])
        points = np.array([[d.a[inside].mean(), d.b[inside].mean()] for d in designs])
        apart = cdist(points, points) + np.diag(np.full(8, np.inf))
        wanted = np.sqrt(((change[apart.argmin(1)] - change) ** 2).mean() / 2 / 8)
        np.testing.assert_allclose(found.standard_error[0, half], wanted, rtol=1e-9)


@pytest.mark.slow
def test_error_bars_of_refined_maps_are_honest():
    """Of drawn functions: the share of intervals that hold the truth of 4,000 independent designs."""
    (found,) = load_tool("refine").coverage_rows(2, 15, [32])
    assert found["intervals"] > 2000
    for name in ("held", "finest"):
        assert 0.93 <= found[name] <= 0.98
