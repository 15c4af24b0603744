"""Models of other settings: selectors without topography, tokens without standardisation."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("pytorch_lightning")

from small_models import GRID, coordinates, memory_tokens, problem, small_model

from brainkit.config import TrainConfig
from brainkit.errors import UsageError
from brainkit.model.factor_topy import FactorTopy
from brainkit.training.fit import fit
from brainkit.training.module import EncodingModule
from brainkit.training.token_statistics import fit_statistics


def test_without_topography_coordinates_play_no_part(tmp_path: Path) -> None:
    found = []
    for place in (0, 1):
        tokens = memory_tokens()
        module, data = problem(epochs=3)
        torch.manual_seed(5)
        model = FactorTopy(tokens.widths, coordinates(20, seed=place), bottleneck=6, grid=GRID, topography=False)
        fit_statistics(model, tokens, data.split.train)
        (tmp_path / str(place)).mkdir()
        module = EncodingModule(model, module.config, 9)
        fit(module, data, tmp_path / str(place))
        found.append(model)
    assert {name for name, _ in found[0].named_parameters() if "selector" in name} == {
        "free_selectors.location",
        "free_selectors.layer",
        "free_selectors.scale",
    }
    a, b = (model.selectors() for model in found)
    for name in ("locations", "layer_weights", "scale"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.locations.detach().std(0).min() > 0  # they have learnt, each on its own
    torch.testing.assert_close(a.locations, found[0].free_selectors.location.tanh())  # type: ignore[union-attr]
    assert torch.allclose(a.layer_weights.sum(1), torch.ones(20))
    rates = [group["lr"] for group in module.configure_optimizers()["optimizer"].param_groups]
    warmup = module._learning_rate_factor(0)
    assert rates[0] == pytest.approx(TrainConfig().lr_free_selectors * warmup)


def test_without_topography_the_model_folds_and_loads(tmp_path: Path) -> None:
    tokens = memory_tokens()
    torch.manual_seed(0)
    model = FactorTopy(tokens.widths, coordinates(20), bottleneck=6, grid=GRID, topography=False)
    fit_statistics(model, tokens, np.arange(40))
    with torch.no_grad():
        for parameter in model.free_selectors.parameters():  # type: ignore[union-attr]
            parameter.normal_()
    other = FactorTopy(tokens.widths, coordinates(20, seed=3), bottleneck=6, grid=GRID, topography=False)
    other.load_state_dict(model.state_dict())
    batch = tokens.batch(np.arange(5))
    with torch.inference_mode():
        assert torch.equal(model.eval()(*batch), other.eval()(*batch))
    folded = model.folded()
    np.testing.assert_allclose(folded.scale, model.selectors().scale.detach().numpy())


@pytest.mark.parametrize("topography", [True, False])
def test_a_fixed_selector_stays_neutral_while_the_others_learn(tmp_path: Path, topography: bool) -> None:
    neutral = {"layer": ("layer_weights", 0.5), "location": ("locations", 0.0), "scale": ("scale", 0.5)}
    for fixed in (*((name,) for name in neutral), tuple(neutral)):
        module, data = problem(epochs=2)
        tokens = memory_tokens()
        torch.manual_seed(5)
        options = {"bottleneck": 6, "grid": GRID, "topography": topography, "fixed": fixed}
        model = FactorTopy(tokens.widths, coordinates(20), **options)
        fit_statistics(model, tokens, data.split.train)
        folder = tmp_path / "-".join(fixed)
        folder.mkdir()
        fit(EncodingModule(model, module.config, 6), data, folder)
        loaded = FactorTopy(tokens.widths, coordinates(20), **options)
        loaded.load_state_dict(model.state_dict())
        folded = loaded.folded()
        for name, (attribute, value) in neutral.items():
            stays = np.abs(getattr(folded, attribute) - value).max() < 1e-6
            assert stays == (name in fixed), (name, fixed)


def test_only_the_three_selectors_can_be_fixed() -> None:
    with pytest.raises(UsageError, match="channel"):
        FactorTopy({"a": 3}, coordinates(4), fixed=["channel"])


@pytest.mark.parametrize("gauge", ["unit", "published"])
def test_raw_tokens_go_in_as_they_are(gauge: str) -> None:
    tokens = memory_tokens()
    model = small_model(tokens, gauge=gauge)
    model.leave_tokens_raw()
    local, whole = tokens.batch(np.arange(len(tokens)))
    with torch.inference_mode():
        grid, single = model.bottlenecked(local, whole)
    for index, layer in enumerate(tokens.layers):
        bottleneck = model.local_token_bottleneck[layer].weight[:, :, 0, 0]
        plain = torch.einsum("dc,nchw->ndhw", bottleneck.detach(), local[layer])
        power = {name: float(part.square().mean()) for name, part in (("grid", grid[:, index]), ("plain", plain))}
        if gauge == "unit":  # whose unit is then that of the raw tokens, mean and all
            assert power["grid"] == pytest.approx(1, rel=1e-4)
            plain = plain / power["plain"] ** 0.5
            assert float(single[:, index].square().mean()) == pytest.approx(1, rel=1e-4)
        torch.testing.assert_close(grid[:, index], plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_offsets_learn_are_penalised_and_fold(tmp_path: Path) -> None:
    found = {}
    for penalty in (0.0, 100.0):
        module, data = problem(epochs=3, offset_penalty=penalty)
        torch.manual_seed(5)
        model = FactorTopy(data.tokens.widths, coordinates(20), bottleneck=6, grid=GRID, offsets=("location", "layer"))
        fit_statistics(model, data.tokens, data.split.train)
        (tmp_path / str(penalty)).mkdir()
        module = EncodingModule(model, module.config, 9)
        fit(module, data, tmp_path / str(penalty))
        assert model.offsets is not None and not model.offsets.scale.any()
        found[penalty] = model
    free, held = (found[penalty].offsets for penalty in (0.0, 100.0))
    assert free.location.detach().std(0).min() > 0 and free.layer.detach().std(0).min() > 0
    assert 0 < held.location.detach().square().mean() < 0.2 * free.location.detach().square().mean()

    model = found[0.0]
    other = FactorTopy(model.widths, coordinates(20), bottleneck=6, grid=GRID, offsets=("location", "layer"))
    other.load_state_dict(model.state_dict())
    batch = data.tokens.batch(np.arange(5))
    with torch.inference_mode():
        assert torch.equal(model.eval()(*batch), other.eval()(*batch))
    np.testing.assert_allclose(model.folded().locations, other.selectors().locations.detach().numpy())
    assert not torch.equal(model.selectors().locations, small_model(data.tokens).selectors().locations)
