"""What channels show in photographs, against a network whose tokens are the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="the encoder of these tests is built with onnx")
pytest.importorskip("onnxruntime")

from pixel_encoder import SIZE, V, readout_constants, save_images, write_encoder, write_ensemble

from brainkit.errors import ImageError
from brainkit.insilico.token_charts import Row, coloured, picture_rows, spotlit
from brainkit.insilico.token_pictures import (
    channel_pictures,
    mix_layers,
    principal_channels,
    read_tokens,
    response_pictures,
)
from brainkit.predict import load


def test_tokens_are_those_that_vertices_read(tmp_path):
    images = save_images(tmp_path, 3)
    tokens, prepared = read_tokens(load(write_encoder(tmp_path)), images)
    assert tokens.shape == (3, 1, 3, SIZE, SIZE)
    np.testing.assert_allclose(tokens[:, 0], prepared.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no")
    with pytest.raises(ImageError, match="broken"):
        read_tokens(load(write_encoder(tmp_path)), [broken])


def test_weights_are_those_of_the_readout_in_the_order_of_the_vertices(tmp_path):
    wanted = np.array([7, 2, 15])
    encoder = load(write_encoder(tmp_path))
    np.testing.assert_allclose(encoder.readout_of(wanted).weights, readout_constants().weight[wanted] / 3, rtol=1e-6)
    assert load(write_ensemble(tmp_path)).readout_of(np.arange(V)).weights.shape == (V, 6)


def test_principal_channels_are_the_directions_that_the_weights_share():
    random = np.random.default_rng(0)
    shared = np.linalg.qr(random.normal(size=(9, 2)))[0].T
    weights = np.outer(random.uniform(2, 3, 50), shared[0]) + np.outer(random.normal(size=50), shared[1])
    found = principal_channels(weights)
    np.testing.assert_allclose(found[:2] @ found[:2].T, np.eye(2), atol=1e-9)
    assert found[0] @ shared[0] > 0.95  # its sign too
    assert np.linalg.norm(found[:2] @ shared.T) == pytest.approx(np.sqrt(2))
    assert not found[2].any()  # there is no third
    assert not principal_channels(np.zeros((4, 9))).any()


def test_layers_are_mixed_by_the_mean_weights():
    tokens = np.stack([np.full((2, 3, 4, 4), 1.0), np.full((2, 3, 4, 4), 10.0)], axis=1)
    assert mix_layers(tokens, np.array([[1, 0], [0.5, 0.5]])) == pytest.approx(0.75 + 2.5)


def test_colours_follow_the_channels_on_one_scale_for_all_images():
    ramp = np.linspace(0, 1, 16).reshape(1, 4, 4)
    mixed = np.stack([np.concatenate([ramp, 0 * ramp, -ramp]), np.concatenate([ramp, 0 * ramp, ramp])])
    found = channel_pictures(mixed, np.eye(3))
    np.testing.assert_allclose(found[0, ..., 0], found[1, ..., 0])
    assert (np.diff(found[0, ..., 0].ravel()) >= 0).all() and found[..., 0].min() == 0 and found[..., 0].max() == 1
    assert (found[..., 1] == 0.5).all()
    assert (found[0, ..., 2] <= 0.51).all() and (found[1, ..., 2] >= 0.49).all()


def test_light_falls_where_the_vertices_respond():
    mixed = np.zeros((2, 2, 4, 4))
    mixed[0, 0, 1, 2], mixed[1, 1] = 5, -3
    found = response_pictures(mixed, np.array([[1.0, 0], [1, 1]]))
    assert np.unravel_index(found.argmax(), found.shape) == (0, 1, 2) and found.max() == 1 and not found[1].any()


def test_pictures_keep_their_size_and_show_the_light():
    photo = np.full((20, 20, 3), [200, 100, 0], np.uint8)
    light = np.zeros((2, 2))
    light[0] = 1
    found = spotlit(photo, light).astype(int)
    assert found.shape == photo.shape and found.dtype.kind == "i"
    np.testing.assert_allclose(found[0, 0], photo[0, 0], atol=3)
    assert np.ptp(found[-1, -1]) < 3  # grey
    tinted = coloured(photo, np.stack([light, 1 - light, 0 * light], axis=-1)).astype(int)
    assert tinted[0, 0].argmax() == 0 and tinted[-1, -1].argmax() == 1


def test_rows_are_drawn_with_any_name(tmp_path):
    pytest.importorskip("matplotlib")
    picture = np.full((8, 8, 3), [0, 0, 255], np.uint8)
    rows = [Row("$x$ <b>", [picture] * 2, "3 vertices", np.array([1.0, 0, 0])), Row("b", [picture])]
    path = picture_rows(rows, title="t", blocks=2).write(tmp_path / "a.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (pixels == [0, 0, 255]).all(axis=-1).mean() > 0.1 and (pixels == [255, 0, 0]).all(axis=-1).any()
