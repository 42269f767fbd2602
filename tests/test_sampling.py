"""Pick-freeze designs: what each patch is promised, against independent draws and counted cells."""
import itertools

import numpy as np
import pytest

from entropy_captum.sampling import SAMPLERS, check_design, pick_freeze, sequence, supercube, uneven_features


def pairs(designs) -> np.ndarray:
    """The points (a, b) of each feature, (N, d, 2)."""
    return np.array([np.stack([design.a, design.b], 1) for design in designs])


def mean_changes(draw, seeds: int) -> np.ndarray:
    return np.array([np.abs(np.diff(pairs(draw(seed)))).mean((0, 2)) for seed in range(seeds)])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(2, 16), (8, 16), (20, 16), (32, 64), (64, 64)])
def test_no_patch_changes_more_by_chance_than_in_an_independent_design(n, d):
    """|a - b| of independent uniform a, b has variance 1/18; a patch's mean change must not vary more than that over seeds."""
    values = mean_changes(lambda seed: supercube(n, d, seed), 200)
    independent = np.sqrt(1 / 18 / n)
    # The deviation of 200 values is itself known to 5 %; the worst of d patches may be three of those off.
    assert values.std(0).max() < 1.16 * independent
    assert values.mean() == pytest.approx(1 / 3, abs=4 * independent / np.sqrt(200 * d))
    if n >= 32:  # where one Sobol sequence breaks the promise
        assert values.std(0).max() < 0.35 * independent
        assert mean_changes(lambda seed: sequence(n, d, "sobol", seed=seed), 50).std(0).max() > 1.2 * independent


@pytest.mark.parametrize("n", [8, 16, 32])
def test_the_points_of_a_patch_are_a_net(n):
    """Every dyadic cell of area 1/N of the square of (a, b) holds exactly one of a patch's points."""
    points, bits = pairs(supercube(n, 5, 3)), n.bit_length() - 1
    for rows in range(bits + 1):
        cells = np.floor(points * [2**rows, 2**(bits - rows)]).astype(int) @ [2**(bits - rows), 1]
        assert all(sorted(cells[:, i]) == list(range(n)) for i in range(5))


def test_patches_do_not_move_together():
    """Columns of the design are as uncorrelated as permutations are; Sobol's are not."""
    def closest(draw):
        columns = [pairs(draw(seed)).reshape(32, -1) for seed in range(60)]
        squares = np.mean([np.corrcoef(c.T)**2 for c in columns], 0)
        return np.sqrt(max(squares[i, j] for i, j in itertools.combinations(range(len(squares)), 2)))

    assert closest(lambda seed: supercube(32, 16, seed)) < 0.28  # 1 over the root of 31 is 0.18
    assert closest(lambda seed: sequence(32, 16, "sobol", seed=seed)) > 0.7


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_designs_are_reproducible(sampler):
    first, again, other = (pairs(pick_freeze(16, 3, sampler, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert ((first >= 0) & (first <= 1)).all() and first.shape == (16, 3, 2)


@pytest.mark.parametrize(("few", "many"), [(2, 5), (5, 8), (8, 32), (20, 33)])
def test_a_long_run_begins_with_a_short_one(few, many):
    assert np.array_equal(pairs(supercube(few, 7, 1)), pairs(supercube(many, 7, 1))[:few])


def test_a_sobol_design_names_the_patches_that_it_serves_badly():
    with pytest.warns(UserWarning, match=r"redraws 2 of 64 features .*: 42 \(x 0\.51\), 9 \(x 1\.48\)"):
        designs = list(pick_freeze(32, 64, "sobol", seed=1))
    change = 3 * np.abs(np.diff(pairs(designs))).mean((0, 2))
    assert uneven_features(designs) == {9: pytest.approx(change[9]), 42: pytest.approx(change[42])}
    assert not any(uneven_features(list(supercube(32, 64, seed))) for seed in range(20))


@pytest.mark.slow
def test_scores_of_drawn_functions_have_less_error_than_with_independent_designs():
    """f = (w . x)^2 at 16 features: the mean of |f(C_i) - f(A)|, whose truth is that of 2^16 independent designs."""
    rng = np.random.default_rng(0)
    w = rng.normal(1, 1, 16)

    def changes(designs):
        points = pairs(designs)
        base = points[..., 0] @ w
        moved = base[:, None] + (points[..., 1] - points[..., 0]) * w
        return np.abs(moved**2 - base[:, None] ** 2)

    truth = changes(sequence(2**16, 16, "monte_carlo", seed=5)).mean(0)
    error = {name: np.sqrt(np.mean([(changes(pick_freeze(32, 16, name, seed=seed)).mean(0) - truth)**2 for seed in range(60)]))
             for name in ("supercube", "monte_carlo", "latin")}
    assert error["supercube"] < 0.6 * error["monte_carlo"] and error["supercube"] < 0.7 * error["latin"]


def test_a_supercube_is_scrambled():
    with pytest.raises(ValueError, match="scramble=False gives every feature the same points"):
        check_design(8, 4, "supercube", scramble=False)
