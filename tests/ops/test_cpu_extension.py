"""brainkit._C against the definition written out in float64 numpy, one vertex and one tap at a time."""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import pytest

_C = pytest.importorskip("brainkit._C", reason="brainkit was built with BRAINKIT_NO_EXT=1")

NAMES = ("local_tokens", "global_tokens", "locations", "layer_weights", "scale", "weight", "bias")


def make_inputs(images=2, layers=3, channels=5, height=4, width=7, vertices=61, dtype="float64", seed=0):
    draw = np.random.default_rng(seed)
    inputs = {
        "local_tokens": draw.standard_normal((images, layers, channels, height, width)),
        "global_tokens": draw.standard_normal((images, layers, channels)),
        "locations": np.tanh(draw.standard_normal((vertices, 2))),
        "layer_weights": draw.dirichlet(np.ones(layers), vertices),
        "scale": draw.random(vertices),
        "weight": draw.standard_normal((vertices, channels)),
        "bias": draw.standard_normal(vertices),
    }
    return {name: array.astype(dtype) for name, array in inputs.items()}


def define(inputs):
    """The operator by its definition, in float64; taps outside the image are skipped."""
    local, token, locations, omega, scale, weight, bias = (inputs[name].astype("float64") for name in NAMES)
    _, _, channels, height, width = local.shape
    out = np.empty((len(local), len(locations)))
    for v, (x, y) in enumerate(locations):
        if not (np.isfinite(x) and np.isfinite(y)):
            out[:, v] = np.nan
            continue
        px, py = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
        sampled = np.zeros(local.shape[:3])
        for row in (math.floor(py), math.floor(py) + 1):
            for column in (math.floor(px), math.floor(px) + 1):
                if 0 <= row < height and 0 <= column < width:
                    sampled += (1 - abs(px - column)) * (1 - abs(py - row)) * local[..., row, column]
        z = np.einsum("l,bld->bd", omega[v], (1 - scale[v]) * sampled + scale[v] * token)
        out[:, v] = bias[v] + z @ weight[v] / channels
    return out


def forward(inputs, threads=1):
    return _C.factor_readout_forward(*(inputs[name] for name in NAMES), threads=threads)


def backward(inputs, grad, threads=1):
    return _C.factor_readout_backward(grad, *(inputs[name] for name in NAMES[:-1]), threads=threads)


def make_grad(inputs, seed=1):
    shape = len(inputs["local_tokens"]), len(inputs["locations"])
    return np.random.default_rng(seed).standard_normal(shape).astype(inputs["weight"].dtype)


def close(found, expected):
    tolerance = 1e-12 if found.dtype == np.float64 else 2e-5
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


SIZES = {
    "plain": {},
    "one of everything": dict(images=1, layers=1, channels=1, height=1, width=1, vertices=1),
    "one vertex": dict(vertices=1),
    "one row": dict(height=1, width=9),
    "one column": dict(height=9, width=1),
    "channels fill the lanes": dict(channels=32, height=8, width=8),
    "channels one over": dict(channels=33, layers=12, images=3),
    "many images": dict(images=19, vertices=17),
    "many vertices in few groups": dict(height=1, width=2, vertices=500),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_agrees_with_the_definition(sizes, dtype):
    inputs = make_inputs(**sizes, dtype=dtype)
    found = forward(inputs)
    assert found.dtype == dtype
    close(found, define(inputs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shift", [0.0, 1e-6, -1e-6, 0.1, 0.5, 3.0, 1e20])
def test_locations_on_and_beyond_the_border(shift, dtype):
    sides = np.array([-1.0, 0.0, 1.0])
    edge = sides + np.sign(sides) * shift
    locations = np.stack(np.meshgrid(np.concatenate([edge, sides, -edge / 2]), edge), -1).reshape(-1, 2)
    inputs = make_inputs(vertices=len(locations), dtype=dtype)
    inputs["locations"] = locations.astype(dtype)
    close(forward(inputs), define(inputs))


def test_cell_centres_read_their_cell_only():
    inputs = make_inputs(height=4, width=8, vertices=32)
    rows, columns = np.divmod(np.arange(32), 8)
    inputs["locations"] = np.stack([(2 * columns + 1) / 8 - 1, (2 * rows + 1) / 4 - 1], 1)
    inputs["scale"][:] = 0
    cells = inputs["local_tokens"][:, :, :, rows, columns]
    expected = inputs["bias"] + np.einsum("vl,bldv,vd->bv", inputs["layer_weights"], cells, inputs["weight"]) / 5
    close(forward(inputs), expected)


def test_far_outside_only_the_global_token_is_read():
    inputs = make_inputs()
    inputs["locations"][:] = [[5.0, 0.0]]
    inputs["local_tokens"][:] = np.nan
    found = forward(inputs)
    inputs["local_tokens"][:] = 0
    assert np.isfinite(found).all()
    close(found, define(inputs))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_location_that_is_not_finite_affects_its_vertex_only(bad):
    inputs = make_inputs()
    clean = forward(inputs)
    inputs["locations"][7, 1] = bad
    inputs["locations"][-1, 0] = bad
    found = forward(inputs, threads=3)
    assert np.isnan(found[:, [7, -1]]).all()
    rest = np.delete(np.arange(found.shape[1]), [7, found.shape[1] - 1])
    np.testing.assert_array_equal(found[:, rest], clean[:, rest])


def test_a_nan_token_reaches_only_the_vertices_that_read_it():
    inputs = make_inputs(vertices=400)
    inputs["local_tokens"][1, 2, 3, 0, 0] = np.nan
    found = forward(inputs)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(define(inputs)))
    assert 0 < np.isnan(found[1]).sum() < 200
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("name", ["layer_weights", "scale", "weight", "bias"])
def test_a_nan_parameter_affects_its_vertex_only(name):
    inputs = make_inputs()
    inputs[name][3] = np.nan
    found = np.isnan(forward(inputs))
    assert found[:, 3].all()
    assert found.sum() == found.shape[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_number_of_threads_changes_no_bit(dtype):
    inputs = make_inputs(channels=24, vertices=1003, dtype=dtype)
    inputs["locations"][::9] = 0  # one group larger than a tile
    alone = forward(inputs, threads=1)
    for threads in (2, 3, 7, 64):
        np.testing.assert_array_equal(forward(inputs, threads=threads), alone)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes",
    [
        dict(channels=24, vertices=1003),
        dict(images=9, layers=25, channels=150, vertices=400),  # blocks, images and layers are split among threads
        dict(images=1, layers=40, channels=7, vertices=50),
    ],
    ids=["many vertices", "many tokens", "many layers"],
)
def test_the_number_of_threads_changes_no_bit_of_any_gradient(sizes, dtype):
    inputs = make_inputs(**sizes, dtype=dtype)
    inputs["locations"][::9] = 0
    inputs["locations"][5] = np.nan
    grad = make_grad(inputs)
    alone = backward(inputs, grad, threads=1)
    for threads in (2, 3, 7, 64):
        for name, one, many in zip(NAMES, alone, backward(inputs, grad, threads=threads), strict=True):
            np.testing.assert_array_equal(many, one, err_msg=name)


def test_a_gradient_is_that_of_the_definition():
    inputs = make_inputs()
    grad = make_grad(inputs)
    for name, found in zip(NAMES, backward(inputs, grad), strict=True):
        assert found.shape == inputs[name].shape
        direction = np.random.default_rng(2).standard_normal(found.shape)
        ahead, behind = ({**inputs, name: inputs[name] + step * direction} for step in (1e-6, -1e-6))
        expected = (grad * (define(ahead) - define(behind))).sum() / 2e-6
        np.testing.assert_allclose((found * direction).sum(), expected, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_too():
    inputs = make_inputs(vertices=500)
    expected = forward(inputs, threads=3)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(forward(inputs, threads=3), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(forward(inputs, threads=3), expected)


def test_calls_from_several_threads_are_independent():
    jobs = [make_inputs(seed=seed, vertices=300) for seed in range(4)]
    found: dict[int, np.ndarray] = {}
    workers = [
        threading.Thread(target=lambda i=i: found.update({i: forward(jobs[i], threads=2)})) for i in range(len(jobs))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, job in enumerate(jobs):
        np.testing.assert_array_equal(found[i], forward(job))


@pytest.mark.parametrize("sizes", [dict(vertices=0), dict(images=0), dict(vertices=0, images=0)])
def test_empty_inputs_give_empty_outputs(sizes):
    inputs = make_inputs(**sizes)
    assert forward(inputs, threads=2).shape == (len(inputs["local_tokens"]), len(inputs["locations"]))
    for name, grad in zip(NAMES, backward(inputs, make_grad(inputs), threads=2), strict=True):
        assert grad.shape == inputs[name].shape
        assert not grad.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_are_stable_and_complete(dtype):
    height, width, vertices = 3, 5, 400
    locations = (1.6 * np.random.default_rng(0).standard_normal((vertices, 2))).astype(dtype)
    locations[[5, 80]] = [[np.nan, 0], [0, -np.inf]]
    order, starts = _C.group_vertices(locations, height, width)
    assert order.dtype == np.int32
    assert starts.dtype == np.int64
    assert starts.shape == ((height + 1) * (width + 1) + 1,)

    finite = np.isfinite(locations).all(1)
    first = np.floor(((np.where(finite[:, None], locations, 0) + 1) * [width, height] - 1) / 2)
    column, row = np.clip(first, -1, [width - 1, height - 1]).astype(int).T
    group = np.where(finite, (row + 1) * (width + 1) + column + 1, len(starts) - 1)
    np.testing.assert_array_equal(order, np.argsort(group, kind="stable"))
    np.testing.assert_array_equal(starts, np.searchsorted(np.sort(group), np.arange(len(starts))))
    assert set(order[starts[-1] :]) == {5, 80}


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_refused(name):
    for change in (lambda a: a[..., :0], lambda a: a[None], lambda a: np.repeat(a, 2, axis=min(1, a.ndim - 1))):
        inputs = make_inputs()
        inputs[name] = np.ascontiguousarray(change(inputs[name]))
        with pytest.raises(ValueError, match="must") as refusal:
            forward(inputs)
        assert "\n" not in str(refusal.value)
        if name != "bias":
            with pytest.raises(ValueError, match="must"):
                backward(inputs, make_grad(make_inputs()))


@pytest.mark.parametrize("name", NAMES)
def test_other_dtypes_and_strides_are_refused_not_copied(name):
    for change in (lambda a: a.astype("float32"), lambda a: np.repeat(a, 2, axis=-1)[..., ::2], lambda a: a.tolist()):
        inputs = make_inputs()
        inputs[name] = change(inputs[name])
        with pytest.raises(TypeError):
            forward(inputs)


def test_other_wrong_arguments_are_refused():
    inputs = make_inputs()
    with pytest.raises(ValueError, match=r"^grad_response .*\(2, 61\), got \(2, 60\)"):
        backward(inputs, np.zeros((2, 60)))
    with pytest.raises(ValueError, match=r"^threads .*-1"):
        backward(inputs, make_grad(inputs), threads=-1)
    with pytest.raises(ValueError, match=r"^threads .*0"):
        forward(inputs, threads=0)
    for height, width in ((0, 4), (4, -1), (2**40, 4)):
        with pytest.raises(ValueError, match=r"^height and width"):
            _C.group_vertices(inputs["locations"], height, width)
    with pytest.raises(ValueError, match="locations"):
        _C.group_vertices(inputs["locations"].ravel(), 4, 4)
    buffer = np.zeros(61 * 2 * 8 + 1, np.uint8)[1:]
    with pytest.raises(ValueError, match="aligned"):
        _C.group_vertices(buffer.view(np.float64).reshape(61, 2), 4, 4)


def test_tensors_give_the_results_of_arrays():
    torch = pytest.importorskip("torch")
    from brainkit.ops import cpu

    assert cpu.why_unavailable() is None
    inputs = make_inputs(dtype="float32")
    found = cpu.forward(*(torch.from_numpy(inputs[name]) for name in NAMES))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), forward(inputs))
