"""Planted truth: the one test that no area effect can win."""
import numpy as np
import pytest

from entropy_captum.planted import Planted, auc, coverage, plant, planted_table


@pytest.mark.slow
def test_entropy_finds_the_patch_that_decides():
    names = ["entropy", "entropy-object", "sobol", "random", "distance"]
    table = planted_table(names, kinds=["patch"]).set_index("method")
    assert (table.auc[["entropy", "entropy-object", "sobol"]] >= 0.95).all() and table.pointing["entropy"] >= 0.9
    assert table.auc["random"] < 0.8 and table.auc["distance"] < 0.8


def test_auc_by_hand():
    truth = np.array([True, False, False, True])
    assert auc(np.array([3.0, 1.0, 2.0, 2.0]), truth) == pytest.approx((2 + 1.5) / 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["patch", "pair"])
def test_error_bars_hold_the_truth(kind):
    assert all(share >= 0.85 for share in coverage(kind, runs=10, samples=32, many=512).values())


@pytest.mark.slow
def test_sobol_designs_are_too_sure_of_pairs():
    """A limit that the documentation states; should it go, the documentation has to be mended."""
    assert coverage("pair", "sobol", runs=10, samples=32, many=512, methods=["entropy"])["entropy"] < 0.8


@pytest.mark.slow
def test_interaction_finds_pairs_with_more_designs_and_is_not_fooled_by_a_patch():
    table = planted_table(["interaction"], ["pair", "patch"], cases=4, samples=32).set_index("kind")
    assert table.auc["pair"] > 0.8 and table.auc["patch"] < 0.1


def test_a_case_is_what_it_says():
    case = plant("pair", 1)
    assert case.truth.sum() == 2 and not case.truth.reshape(8, 8)[3:5, 3:5].any() and case.region.sum() == 16 * 16
    with pytest.raises(ValueError, match="'guess'"):
        Planted("guess", [1])
    with pytest.raises(ValueError, match="'pair'"):
        Planted("pair", [1])


@pytest.mark.slow
def test_a_shadow_lies_beside_the_object_is_dark_and_found():
    for seed in range(5):
        case = plant("shadow", seed)
        row, column = divmod(int(case.truth.argmax()), 8)
        assert 2 <= row <= 5 and 2 <= column <= 5 and case.truth.sum() == 1
        cell = case.inputs[0, :, 8 * row:8 * row + 8, 8 * column:8 * column + 8]
        assert cell.mean() < -0.8 and case.inputs.mean() > 0.8
    table = planted_table(["entropy", "distance"], ["shadow"]).set_index("method")
    assert table.auc["entropy"] >= 0.95 and table.pointing["entropy"] >= 0.9 > table.pointing["distance"]
