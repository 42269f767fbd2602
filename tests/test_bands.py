"""Spectral features: masks that differ by channel in both engines and methods, and what tables, errors and rasters say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from entropy_captum import EntropyCentric, SobolTotal
from entropy_captum.bands import feature_mask_of, spectral_figure, spectral_table, superpixels
from entropy_captum.drawn import DRAWN_BANDS, DRAWN_TRANSFORM, procedural_scene, write_drawn_raster
from entropy_captum.perturbation import named_baseline
from entropy_captum.sampling import pick_freeze


class Band(NamedTuple):
    name: str
    wavelength: float | None = None


BANDS = tuple(Band(name, wavelength) for name, wavelength in DRAWN_BANDS.items())
GROUPS = {"visible": (400.0, 700.0), "infrared": ["nir"]}


class OneBand(torch.nn.Module):
    """A convolution (3 x 3, weight at the centre alone) that reads near infrared; what it is asked lies in one patch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(4, 1, 3, padding=1)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.layer.weight.data[0, 3, 1, 1] = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def asked() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    x = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)) + 0.5
    region = torch.zeros(1, 32, 32)
    region[:, 4:12, 4:12] = 1
    return OneBand().eval(), x, region


def by_loop(x: torch.Tensor, mask: torch.Tensor, region: torch.Tensor, n: int) -> np.ndarray:
    """Mean absolute changes of binary entropy, element by element, with numpy alone."""
    ids, infrared, at = np.unique(mask), x[0, 3].double().numpy(), region[0].numpy() > 0

    def entropy(keep: np.ndarray) -> np.ndarray:
        weight = np.array([[keep[np.searchsorted(ids, i)] for i in row] for row in mask[0, 3].tolist()])
        p = 1 / (1 + np.exp(-2 * infrared * weight))[at]
        return -p * np.log2(p) - (1 - p) * np.log2(1 - p)

    changes = []
    for design in pick_freeze(n, len(ids), "supercube", True, 0):
        a, b = np.asarray(design.a), np.asarray(design.b)
        base = entropy(a)
        changes.append([np.abs(entropy(np.where(np.arange(len(ids)) == i, b, a)) - base).mean() for i in range(len(ids))])
    return np.mean(changes, 0)


@pytest.mark.slow
@pytest.mark.parametrize("inference", ["full", "incremental"])
def test_a_network_that_reads_one_band_in_one_patch_gives_that_feature_alone_a_score(inference: str) -> None:
    model, x, region = asked()
    mask = feature_mask_of("bands*patches", BANDS, (32, 32), 2)
    found = EntropyCentric(model, inference=inference).estimate(x, region=region, feature_mask=mask, n_samples=8)
    assert np.allclose(found.scores[0].numpy(), by_loop(x, mask, region, 8), atol=1e-6)
    assert (found.scores[0] > 1e-4).nonzero().flatten().tolist() == [12]
    sobol = SobolTotal(model, inference=inference).estimate(x, region=region, feature_mask=mask, n_samples=64)
    others = torch.arange(16) != 12
    assert (sobol.scores[0, others].abs() < 1e-6).all()
    assert abs(float(sobol.scores[0, 12]) - 1) < 4 * float(sobol.standard_error[0, 12]) + 1e-6  # alone: all of the variance


def test_masks_hold_each_group_and_place_once() -> None:
    mask = feature_mask_of("bands*patches", BANDS, (6, 6), (2, 3), GROUPS)
    assert mask.shape == (1, 4, 6, 6) and mask.dtype == torch.int64
    for channel, y, x in np.ndindex(4, 6, 6):
        assert mask[0, channel, y, x] == 6 * (channel == 3) + (y // 3) * 3 + x // 2
    assert feature_mask_of("bands", BANDS, (6, 6))[0, :, 0, 0].tolist() == [0, 1, 2, 3]
    patches = feature_mask_of("patches", BANDS, (6, 6), 2)
    assert patches.shape == (1, 4, 6, 6) and (patches == patches[:, :1]).all() and len(patches.unique()) == 4


def test_superpixels_follow_an_edge() -> None:
    image = np.zeros((24, 24, 4))
    image[:, 10:] = 100.0
    ids = superpixels(image, 2, compactness=0.1)[0, 0]
    assert not set(ids[:, :10].unique().tolist()) & set(ids[:, 10:].unique().tolist())
    both = feature_mask_of("bands*superpixels", BANDS, (24, 24), 2, GROUPS, image)
    assert len(both.unique()) == 2 * len(feature_mask_of("superpixels", BANDS, (24, 24), 2, image=image).unique())


@pytest.mark.parametrize(("groups", "said"), [
    ({"a": ["red", "swir"]}, "no band 'swir'; known are red .665 nm., green"),
    ({"a": (2000.0, 2500.0)}, "no band from 2000 to 2500 nm; known are red"),
    ({"a": ["red"], "b": ["red", "green", "blue", "nir"]}, "'red' must be in one group, it is in a, b"),
    ({"a": ["red"]}, "'green' must be in one group, it is in none")])
def test_errors_quote_the_band_and_list_the_known(groups: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        feature_mask_of("bands", BANDS, (8, 8), groups=groups)


@pytest.mark.slow
def test_errors_of_groups_bound_what_repeated_runs_show() -> None:
    _, x, _ = asked()

    def mixed(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,c->bhw", x, torch.tensor([0.3, 0.1, 0.0, 1.0]))[:, None].mean((2, 3), True).expand(-1, 1, 32, 32)

    mask, tables = feature_mask_of("bands*patches", BANDS, (32, 32), 2), []
    for seed in range(24):
        found = EntropyCentric(mixed)
        estimate = found.estimate(x, region=torch.ones(1, 32, 32), feature_mask=mask, n_samples=16, seed=seed)
        tables.append(spectral_table(estimate, BANDS))
    for name, error in (("score", "standard_error"), ("share", "share_error")):
        spread = np.std([table[name] for table in tables], 0, ddof=1)
        assert (spread <= 1.3 * np.mean([table[error] for table in tables], 0) + 1e-9).all(), name
    assert np.allclose([table.share.sum() for table in tables], 1)
    assert tables[0].wavelength.tolist() == [665, 560, 490, 842]
    axes = spectral_figure(tables[0]).axes[0]
    assert axes.get_xlabel() == "wavelength (nm)"


def test_shared_features_are_no_bands() -> None:
    _, x, region = asked()
    found = EntropyCentric(OneBand().eval()).estimate(x, region=region, grid_size=2, n_samples=4)
    with pytest.raises(ValueError, match="do not tell red, green, blue, nir apart"):
        spectral_table(found, BANDS)


def test_baselines_are_made_band_by_band() -> None:
    _, x, _ = asked()
    x = x * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]
    assert torch.allclose(named_baseline("mean", x)[0, :, 5, 5], torch.stack([band.mean() for band in x[0]]))
    changed = x.clone()
    changed[:, 3] = 9.0
    for name in ("grey", "black", "mean", "blur"):
        assert torch.equal(named_baseline(name, x)[:, :3], named_baseline(name, changed)[:, :3])


@pytest.mark.slow
def test_the_drawn_raster_is_georeferenced_and_its_footprints_are_its_buildings(tmp_path: Path) -> None:
    rasterio, geopandas = pytest.importorskip("rasterio"), pytest.importorskip("geopandas")
    from rasterio.features import rasterize
    scene = procedural_scene(2, 256, water=True)
    with rasterio.open(write_drawn_raster(tmp_path, size=256, corner=16, footprints_crs="EPSG:4326")) as file:
        values = file.read()
        assert file.dtypes == ("uint16",) * 4 and file.descriptions == tuple(DRAWN_BANDS) and file.crs.to_epsg() == 25832
        assert file.transform[:6] == DRAWN_TRANSFORM and file.overviews(1) == [2, 4] and file.nodata == 0
        assert file.tags(4, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == "0.842" and file.tags(4)["wavelength"] == "842"
        place, crs = file.transform, file.crs
    assert values.max() <= 4095 and (values[:, -16:, -16:] == 0).all() and (values == 0).sum() == 4 * 16 * 16
    built = geopandas.read_file(tmp_path / "buildings.gpkg")
    assert built.crs.to_epsg() == 4326 and built.id.tolist() == list(range(1, scene.instances.max() + 1))
    burnt = rasterize(zip(built.to_crs(crs).geometry, built.id, strict=True), (256, 256), transform=place, dtype="int32")
    assert (burnt == scene.instances).all()


def roof_of(scene, features: str, groups=None):
    """The third building of a drawn scene, explained by features, and the question alone."""
    from entropy_captum.question import Budget
    return scene.explain(building="3", budget=Budget(4, 8), grid_size=2, methods=("entropy",), features=features, groups=groups)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    from entropy_captum import rooftop_unet
    from entropy_captum.scene import Scene
    from entropy_captum.zoo import Padded
    home = write_drawn_raster(tmp_path_factory.mktemp("bands"), 2, 128).parent
    return Scene(home / "scene.tif", Padded(rooftop_unet()), home / "buildings.gpkg", scale=(0, 4095))


@pytest.mark.slow
def test_a_scene_is_explained_by_its_bands(scene):
    told = roof_of(scene, "bands*patches", {"green": ["green"], "others": (600.0, 700.0), "sky": ["blue"]})
    question, table = told.question, told.spectrum()
    mask = torch.tensor([1, 0, 2])[None, :, None, None] * 4 + torch.tensor([[0, 1], [2, 3]]).repeat_interleave(
        64, 0).repeat_interleave(64, 1)[None, None]  # red counts among the others
    alone = EntropyCentric(question.forward).estimate(
        question.inputs, region=question.region, baselines=question.baselines, n_samples=4, perturbations_per_eval=8,
        feature_mask=mask)
    assert table["band"].tolist() == ["green", "others", "sky"]
    assert table["wavelength"].tolist() == [DRAWN_BANDS["green"], DRAWN_BANDS["red"], DRAWN_BANDS["blue"]]
    assert np.allclose(table["score"], alone.scores.reshape(3, 4).sum(1)[[0, 1, 2]], atol=1e-9)
    assert np.allclose(told.found["entropy"].maps[0], alone.map(), atol=1e-7)  # the mean over bands, not the first one's
    with pytest.raises(ValueError, match="do not tell bands apart; ask with"):
        roof_of(scene, "superpixels").spectrum()
    with pytest.raises(ValueError, match="which do not tell bands apart"):
        roof_of(scene, "patches", {"green": ["green"]})


def test_the_random_control_of_bands_is_a_mean_over_them():
    from entropy_captum.evaluation import random_attribution
    x, ids = torch.zeros(1, 3, 2, 2), torch.arange(12).reshape(1, 3, 2, 2)
    values = np.random.default_rng(5).random(12).reshape(3, 2, 2)
    assert np.allclose(random_attribution(x, ids, 5)[0, 0], values.mean(0))
    everywhere = random_attribution(x, torch.arange(3).reshape(1, 3, 1, 1), 5)
    assert np.allclose(everywhere, np.random.default_rng(5).random(3).mean())


@pytest.mark.slow
def test_the_command_tells_bands_apart(scene, tmp_path):
    import pandas as pd
    from typer.testing import CliRunner

    from entropy_captum.cli import app
    asked = ["explain", scene.raster.path, "--footprints", str(Path(scene.raster.path).with_name("buildings.gpkg")), "--id", "3",
             "--scale", "0", "4095", "--n-samples", "2", "--grid-size", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*asked, "--features", "bands", "--groups", "visible=500-700", "--groups", "sky=blue"],
                              catch_exceptions=False)
    assert done.exit_code == 0 and "entropy, by band" in done.output
    assert pd.read_csv(tmp_path / "entropy-bands.csv")["band"].tolist() == ["visible", "sky"]
    assert (tmp_path / "entropy-bands.png").is_file() and (tmp_path / "entropy-band-maps.png").is_file()
    for options, words in ((["--features", "bands", "--groups", "green"], "--groups 'green': expected a new name and its bands"),
                           (["--features", "bands", "--groups", "green=green"], "band 'red' must be in one group")):
        assert words in str(CliRunner().invoke(app, [*asked, *options]).exception)
    place = asked.index("--id")
    many = CliRunner().invoke(app, [*asked[:place], *asked[place + 2:], "--features", "bands"])
    assert "--features bands is for one building" in str(many.exception)
