"""Starting from another subject's model: what trains, and how far validation images trust it."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from small_models import memory_tokens, problem, small_model, stir

from brainkit.training.fit import fit
from brainkit.training.refit import mean_r, refit
from brainkit.training.transfer import SHARED, choose_start, keep_bottlenecks


def test_training_leaves_the_bottlenecks_bit_for_bit(tmp_path: Path) -> None:
    module, data = problem(epochs=2)
    old = small_model(memory_tokens())
    keep_bottlenecks(module.model, old)
    module.priors.append(choose_start(module.model, old, np.arange(20), data).prior)
    fit(module, data, tmp_path)
    before, after = old.state_dict(), module.model.state_dict()
    for name in before:
        if name.startswith(SHARED):
            assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("alike", [True, False])
def test_validation_images_decide_whose_selectors_are_the_start(alike: bool) -> None:
    module, data = problem()
    model, old = module.model, small_model(memory_tokens())  # the model that made the responses
    if not alike:
        with torch.no_grad():
            for network in (old.space_selector_mlp, old.layer_selector_mlp, old.scale_selector_mlp):
                network[5].weight.mul_(-3)
    keep_bottlenecks(model, old)
    began = choose_start(model, old, np.arange(20), data)
    r = began.validation_r
    assert began.transferred == (r["transferred"] > r["neutral"])
    assert not alike or began.transferred
    found = mean_r(model, data.tokens, data.responses, data.split.validation)
    assert found == pytest.approx(max(r.values()), abs=1e-6)
    assert began.prior is not None and torch.equal(began.prior, old.weight)


def test_without_common_coordinates_the_selectors_stay_neutral() -> None:
    module, data = problem()
    old = small_model(memory_tokens())
    keep_bottlenecks(module.model, old)
    began = choose_start(module.model, old, None, data)
    assert began.prior is None and not began.transferred and set(began.validation_r) == {"neutral"}
    assert not module.model.selectors().locations.any()


def test_a_vertex_far_from_all_begins_without_readout() -> None:
    module, _ = problem()
    from brainkit.training.transfer import start_from

    old = small_model(memory_tokens())
    nearest = np.arange(20)
    nearest[3] = -1
    start_from(module.model, old, nearest)
    assert not module.model.weight[3].any() and torch.equal(module.model.weight[4], old.weight[4])


def test_a_prior_that_is_right_helps_and_one_that_is_wrong_is_left() -> None:
    module, data = problem()
    truth = small_model(memory_tokens())
    model = stir(module.model)
    scale = {name: getattr(model, name) for name in ("response_mean", "response_std")}
    model.load_state_dict(truth.state_dict() | scale)
    rows, validation, test = data.split.train[:6], data.split.validation, data.split.test

    def tested(prior: torch.Tensor | None) -> float:
        refit(model, data.tokens, data.responses, rows, validation, prior=prior)
        return mean_r(model, data.tokens, data.responses, test)

    without = tested(None)
    assert tested(truth.weight.detach().clone()) > without + 0.05
    refit(model, data.tokens, data.responses, rows, validation)
    before = mean_r(model, data.tokens, data.responses, validation)
    tested(100 * torch.randn(model.weight.shape, generator=torch.Generator().manual_seed(0)))
    assert mean_r(model, data.tokens, data.responses, validation) >= before - 1e-6
