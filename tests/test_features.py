"""The token cache: every image passes the backbone once, the key is what the tokens depend on, nothing half-made."""

# ruff: noqa: E402  (what is imported first may be missing: then the file is skipped)
from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from small_models import coordinates, memory_tokens
from torch import nn

from brainkit import features
from brainkit.backbones import Backbone
from brainkit.errors import BrainkitError, DataError
from brainkit.features import extract_tokens, fit_statistics
from brainkit.images import Preprocessing, decode, normalise, prepare
from brainkit.model import FactorTopy, to_grid

SEEN = Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")


class Patches(nn.Module):
    """Two layers of patches, the second one coarser; counts the images it is shown."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, 4, 4, generator=generator) * gain)
        self.shown = 0
        self.extra = 1.0

    def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        self.shown += len(images)
        fine = nn.functional.conv2d(images, self.weight, stride=2) * self.extra
        local = {"fine": fine, "coarse": nn.functional.avg_pool2d(fine, 2)}
        return local, {layer: tokens.mean((2, 3)) for layer, tokens in local.items()}


def backbone(network: nn.Module | None = None, **changes: object) -> Backbone:
    arguments = {
        "name": "patches",
        "preprocessing": SEEN,
        "layers": {"fine": "fine", "coarse": "coarse"},
        "pretrained": True,
        "licence": "",
        "source": "",
    } | changes
    made = Backbone(network or Patches(), **arguments)  # type: ignore[arg-type]
    made.network.shown = 0  # it was probed
    return made


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(11)]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def test_tokens_are_those_of_the_backbone_in_order(photos: list[Path], cache: Path) -> None:
    network = backbone()
    done: list[int] = []
    tokens = extract_tokens(network, photos, grid=(3, 3), batch_size=4, progress=done.append)
    assert done == [4, 8, 11]
    assert (tokens.layers, len(tokens), tokens.grid) == (("fine", "coarse"), 11, (3, 3))
    assert tokens.widths == {"fine": 4, "coarse": 4}
    rows = np.array([10, 0, 3])
    images = normalise(np.stack([prepare(decode(photos[row]), SEEN) for row in rows]), SEEN)
    local, whole = network.get_tokens(torch.from_numpy(images))
    found_local, found_whole = tokens.batch(rows)
    for layer in tokens.layers:
        assert found_local[layer].dtype == torch.float32
        torch.testing.assert_close(found_local[layer], to_grid(local[layer], (3, 3)), rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(found_whole[layer], whole[layer], rtol=2e-3, atol=2e-3)


def test_the_second_time_the_backbone_is_not_asked(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    network = backbone()
    first = extract_tokens(network, photos, grid=(3, 3))
    assert network.network.shown == 11
    # Neither the place nor the name of a file matters, only what is in it.
    moved = [path.rename(tmp_path / f"x{path.name}") for path in photos]
    assert features.tokens_in_cache(network, moved, (3, 3))
    second = extract_tokens(network, moved, grid=(3, 3), batch_size=2)
    assert network.network.shown == 11 + 2  # the first two are looked at again, to see that nothing has changed
    assert second.folder == first.folder
    assert [path.name for path in cache.iterdir()] == [first.folder.name]


def test_what_the_tokens_depend_on_changes_the_key(photos: list[Path], cache: Path) -> None:
    def place(network: Backbone, images: list[Path] = photos, grid: tuple[int, int] = (3, 3)) -> Path:
        return extract_tokens(network, images, grid=grid).folder

    class Elsewhere(Patches):
        pass

    folders = [
        place(backbone()),
        place(backbone(Patches(2.0))),
        place(backbone(name="other")),
        place(backbone(layers={"fine": "fine"})),
        place(backbone(layers={"coarse": "coarse", "fine": "fine"})),
        place(backbone(preprocessing=dataclasses.replace(SEEN, mean=(0.4, 0.5, 0.5)))),
        place(backbone(), photos[:10]),
        place(backbone(), photos[::-1]),
        place(backbone(), grid=(2, 3)),
    ]
    assert len(set(folders)) == len(folders)
    Image.new("RGB", (20, 24)).save(photos[0])
    assert place(backbone()) not in folders


def test_a_plug_in_that_is_edited_is_run_again(photos: list[Path], cache: Path, tmp_path: Path) -> None:
    from brainkit.backbones import load_backbone

    program = (
        "import torch\nclass Mean(torch.nn.Module):\n    def get_tokens(self, images):\n"
        "        local = torch.nn.functional.adaptive_avg_pool2d(images, 3) * 1\n"
        "        return {'a': local}, {'a': local.mean((2, 3))}\n"
    )
    file = tmp_path / "net.py"
    file.write_text(program)
    before = extract_tokens(load_backbone(f"{file}:Mean", size=32), photos, grid=(3, 3))
    file.write_text(program.replace("* 1", "* 20"))
    after = extract_tokens(load_backbone(f"{file}:Mean", size=32), photos, grid=(3, 3))
    torch.testing.assert_close(
        after.batch(np.arange(3))[1]["a"], 20 * before.batch(np.arange(3))[1]["a"], rtol=3e-3, atol=1e-2
    )


def test_a_network_that_has_changed_under_its_name_is_run_again(photos: list[Path], cache: Path) -> None:
    network = backbone()
    before = extract_tokens(network, photos, grid=(3, 3)).batch(np.arange(11))[0]["fine"]
    network.network.extra = 1.5  # nothing that the key depends on
    assert features.tokens_in_cache(network, photos, (3, 3))
    after = extract_tokens(network, photos, grid=(3, 3)).batch(np.arange(11))[0]["fine"]
    torch.testing.assert_close(after, 1.5 * before, rtol=2e-3, atol=2e-3)


def test_small_changes_on_a_large_mean_are_kept(photos: list[Path], cache: Path) -> None:
    class Raised(Patches):
        def get_tokens(self, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
            local, whole = super().get_tokens(images)
            return {k: v + 3e4 for k, v in local.items()}, {k: v - 9e4 for k, v in whole.items()}

    rows = np.arange(11)
    plain = extract_tokens(backbone(), photos, grid=(3, 3)).batch(rows)
    raised = extract_tokens(backbone(Raised()), photos, grid=(3, 3)).batch(rows)
    for offset, found, true in ((3e4, raised[0], plain[0]), (-9e4, raised[1], plain[1])):
        for layer in true:
            # float32 itself keeps 0.004 at 3e4 and 0.008 at 9e4; float16 would keep 16 and nothing
            torch.testing.assert_close(found[layer] - offset, true[layer], rtol=2e-3, atol=0.02)


def test_what_a_killed_extraction_left_is_swept_away(photos: list[Path], cache: Path) -> None:
    old, new = cache / ".old.12345678", cache / ".new.12345678"
    for place in (old, new):
        place.mkdir(parents=True)
    os.utime(old, (0, 0))
    extract_tokens(backbone(), photos, grid=(3, 3))
    assert not old.exists()
    assert new.exists()  # perhaps another process is at work there


def test_an_unreadable_image_is_named_and_nothing_is_left(photos: list[Path], cache: Path) -> None:
    photos[6].write_bytes(photos[6].read_bytes()[:200])
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(backbone(), photos, grid=(3, 3), batch_size=2)
    assert list(cache.iterdir()) == []
    photos[6].unlink()
    with pytest.raises(DataError, match=r"06\.png"):
        extract_tokens(backbone(), photos, grid=(3, 3))


def test_an_interruption_leaves_nothing(photos: list[Path], cache: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_tokens(backbone(), photos, grid=(3, 3), batch_size=4, progress=stop)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("gain", "expected"), [(1e6, "float16 ends at 65504"), (float("nan"), "not finite")])
def test_tokens_that_float16_cannot_hold(photos: list[Path], cache: Path, gain: float, expected: str) -> None:
    with pytest.raises(BrainkitError, match=f"layer fine: .*{expected}"):
        extract_tokens(backbone(Patches(gain)), photos, grid=(3, 3))
    assert list(cache.iterdir()) == []


def test_too_little_space_is_said_before_the_work(
    photos: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 100})())
    network = backbone()
    with pytest.raises(BrainkitError, match="BRAINKIT_CACHE"):
        extract_tokens(network, photos, grid=(3, 3))
    assert network.network.shown == 0


def test_a_cache_that_cannot_be_made(photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BrainkitError, match="BRAINKIT_CACHE"):
        extract_tokens(backbone(), photos, grid=(3, 3))


def test_statistics_by_numpy() -> None:
    tokens = memory_tokens(n=300)
    tokens.local["late"].values[:, 4] = np.float16(2.7)
    rows = np.arange(0, 300, 2)
    model = FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)
    fit_statistics(model, tokens, rows)
    for arrays, held in ((tokens.local, model.local_statistics), (tokens.whole, model.global_statistics)):
        for layer in tokens.layers:
            values = np.moveaxis(arrays[layer][rows].astype(np.float64), 1, -1).reshape(-1, tokens.widths[layer])
            mean, std = values.mean(0), values.std(0)
            varies = std > 1e-6
            np.testing.assert_allclose(held[layer].mean.numpy(), mean, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(held[layer].std.numpy(), std * varies, rtol=1e-5)
            scaled = (values - mean) / np.where(varies, std, np.inf)
            np.testing.assert_allclose(held[layer].moment.numpy(), scaled.T @ scaled / len(scaled), atol=1e-4)


def test_moments_of_many_images_come_from_a_spread_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = memory_tokens(n=60)
    tokens.whole["early"].values[30:] *= 3
    monkeypatch.setattr(features, "IMAGES_FOR_MOMENTS", 20)
    model = FactorTopy(tokens.widths, coordinates(3), grid=tokens.grid)
    fit_statistics(model, tokens, np.arange(60))
    diagonal = model.global_statistics["early"].moment.diagonal()
    assert 0.6 < float(diagonal.mean()) < 1.5
