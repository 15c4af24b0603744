"""Small networks of the published kinds, and their weights in the layouts of the authors' own files.

A layout is the names of the keys, the containers, and what a file has besides the encoder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

State = dict[str, torch.Tensor]
WIDTH, DEPTH = 32, 3
_VIT = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "convnext": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
    "swin": {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)},
    "resnet": {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)},
    "samvit": _VIT | {"global_attn_indexes": (1,)},
    "vit": _VIT,
    "eva02": _VIT,
}


def make_networks_small(patch: pytest.MonkeyPatch) -> None:
    """Make timm and torchvision build all networks with few narrow layers, otherwise unchanged."""
    create = timm.create_model

    def small(name: str, **options: Any) -> nn.Module:
        size = next((size for kind, size in SMALL.items() if name.startswith(kind)), {})
        return create(name, **size | options)

    def small_vit(image_size: int = 224) -> nn.Module:
        shape = {"num_layers": DEPTH, "num_heads": 2, "hidden_dim": WIDTH, "mlp_dim": 2 * WIDTH}
        return torchvision.models.VisionTransformer(image_size=image_size, patch_size=16, **shape)

    patch.setattr(timm, "create_model", small)
    patch.setattr(torchvision.models, "vit_b_16", small_vit)


def perturbed(network: nn.Module, seed: int = 0) -> nn.Module:
    """Change every tensor, so that a tensor that is not loaded is noticed: many are initially zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator) * 0.4 - 0.2)
    return network.eval()


def renamed(state: Mapping[str, torch.Tensor], *pairs: tuple[str, str], prefix: str = "") -> State:
    """Replace each pair in each key, in order, and add the prefix."""
    out = {}
    for key, value in state.items():
        for old, new in pairs:
            key = key.replace(old, new)
        out[prefix + key] = value
    return out


def zeros(*shape: int) -> torch.Tensor:
    """What a file has besides the encoder; the networks here do not have it."""
    return torch.zeros(shape)


# --- one function per layout: from timm's state dict to the content of the file


def timm_hub(state: State) -> State:
    """timm's own safetensors, with a classifier."""
    return state | {"head.weight": zeros(10, WIDTH), "head.bias": zeros(10)}


def dinov2(state: State) -> State:
    return state | {"mask_token": zeros(1, WIDTH)}


def dinov3(state: State) -> State:
    out = renamed(state, ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))
    for block in range(DEPTH):
        out[f"blocks.{block}.attn.qkv.bias"] = zeros(3 * WIDTH)
        out[f"blocks.{block}.attn.qkv.bias_mask"] = zeros(3 * WIDTH)
    return out | {"mask_token": zeros(1, WIDTH), "rope_embed.periods": zeros(4)}


def mae(state: State) -> dict[str, Any]:
    return {"model": state}


def mae_with_decoder(state: State) -> dict[str, Any]:
    decoder = {"decoder_pos_embed": zeros(1, 197, 16), "decoder_blocks.0.norm1.weight": zeros(16)}
    decoder |= {"mask_token": zeros(1, 1, 16), "decoder_embed.weight": zeros(16, WIDTH), "decoder_norm.bias": zeros(16)}
    options = argparse.Namespace(model="mae_vit_base_patch16", blr=np.float64(1.5e-4))
    return {"model": state | decoder, "optimizer": {"state": {}, "param_groups": []}, "epoch": 799, "args": options}


def mocov3(state: State) -> dict[str, Any]:
    encoder = state | {"head.0.weight": zeros(64, WIDTH), "head.1.running_mean": zeros(64)}
    whole = renamed(encoder, prefix="module.base_encoder.")
    whole |= renamed({key: value + 5 for key, value in encoder.items()}, prefix="module.momentum_encoder.")
    whole |= {"module.predictor.0.weight": zeros(64, 16), "module.predictor.1.num_batches_tracked": torch.tensor(3)}
    return {"epoch": 300, "arch": "vit_base", "state_dict": whole, "optimizer": {"state": {}}, "scaler": {"scale": 2.0}}


def open_clip(state: State) -> State:
    inside = (
        ("blocks.", "transformer.resblocks."),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    )
    outside = (("patch_embed.proj", "conv1"), ("norm_pre", "ln_pre"), ("norm.", "ln_post."))
    blocks = {key: value for key, value in state.items() if key.startswith("blocks.")}
    rest = {key: value for key, value in state.items() if key not in blocks}
    out = renamed(blocks, *inside, prefix="visual.")
    out["visual.class_embedding"] = rest.pop("cls_token").flatten()
    out["visual.positional_embedding"] = rest.pop("pos_embed")[0]
    out |= renamed(rest, *outside, prefix="visual.") | {"visual.proj": zeros(WIDTH, 8)}
    # The text tower has blocks of the same names.
    text = {"positional_embedding": zeros(77, 8), "text_projection": zeros(8, 8), "token_embedding.weight": zeros(9, 8)}
    text |= {"transformer.resblocks.0.ln_1.weight": zeros(8), "ln_final.weight": zeros(8), "logit_scale": zeros()}
    return out | text


def perception_encoder(state: State) -> State:
    pooling = {key: value for key, value in state.items() if key.startswith("attn_pool.")}
    out = open_clip({key: value for key, value in state.items() if key not in pooling})
    out = renamed(out, (".gamma_", ".ls_"))
    weight, bias = (torch.cat([pooling.pop(f"attn_pool.{part}.{what}") for part in ("q", "kv")]) for what in PARTS)
    out |= {"visual.attn_pool.attn.in_proj_weight": weight, "visual.attn_pool.attn.in_proj_bias": bias}
    pairs = (("latent", "probe"), ("attn_pool.proj", "attn_pool.attn.out_proj"), ("pool.norm", "pool.layernorm"))
    return out | renamed(pooling, *pairs, ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), prefix="visual.")


PARTS = ("weight", "bias")


def open_clip_of_timm(state: State) -> State:
    """SigLIP: open_clip's file with an image tower of timm."""
    text = {"text.token_embedding.weight": zeros(9, 8), "text.transformer.resblocks.0.ln_1.weight": zeros(8)}
    return renamed(state, prefix="visual.trunk.") | text | {"logit_scale": zeros(), "logit_bias": zeros()}


def eva02(state: State) -> dict[str, Any]:
    out = renamed(
        state,
        ("fc_norm", "norm"),
        ("mlp.norm", "mlp.ffn_ln"),
        ("mlp.fc1_g", "mlp.w1"),
        ("mlp.fc1_x", "mlp.w2"),
        ("mlp.fc2", "mlp.w3"),
        ("q_proj.bias", "q_bias"),
        ("v_proj.bias", "v_bias"),
    )
    out |= {f"{at}rope.freqs_{wave}": zeros(256, 16) for at in ("", "blocks.0.attn.") for wave in ("cos", "sin")}
    return {"model": out | {"mask_token": zeros(1, 1, WIDTH), "lm_head.weight": zeros(8, WIDTH)}}


def sam(state: State) -> State:
    out = renamed(state, ("mlp.fc", "mlp.lin"), prefix="image_encoder.")
    beside = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": zeros(2, 8)}
    return out | beside | {"mask_decoder.transformer.layers.0.mlp.lin1.weight": zeros(8, 8)}


def ijepa(state: State) -> dict[str, Any]:
    encoder = renamed(state, prefix="module.")
    target = renamed({key: value + 5 for key, value in state.items()}, prefix="module.")
    predictor = {"module.mask_token": zeros(1, 1, 8), "module.predictor_blocks.0.norm1.weight": zeros(8)}
    rest = {"opt": {"state": {}}, "scaler": None, "target_encoder": target, "epoch": 300, "loss": np.float64(0.2)}
    return {"encoder": encoder, "predictor": predictor, **rest, "batch_size": 128, "world_size": 16, "lr": 1e-3}


def convnext(state: State) -> dict[str, Any]:
    out = renamed(
        state,
        ("stem.", "downsample_layers.0."),
        *((f"stages.{stage}.downsample.", f"downsample_layers.{stage}.") for stage in (1, 2, 3)),
        (".blocks.", "."),
        ("conv_dw", "dwconv"),
        ("mlp.fc", "pwconv"),
        ("head.norm", "norm"),
    )
    return {"model": out | {"head.weight": zeros(10, WIDTH), "head.bias": zeros(10)}}


def swin(state: State) -> dict[str, Any]:
    pairs = [(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample") for stage in (1, 2, 3)]
    out = renamed(state, *pairs) | {"head.weight": zeros(10, 128), "head.bias": zeros(10)}
    out |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    return {"model": out | {"layers.0.blocks.1.attn_mask": zeros(64, 49, 49)}}


def resnet(state: State) -> State:
    """torchvision's, with the same keys as timm's."""
    return state | {"fc.weight": zeros(10, 64), "fc.bias": zeros(10)}


def torchvision_vit(state: State) -> State:
    """As published: with the names of the perceptrons before torchvision 0.13."""
    out = renamed(state, (".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2."))
    return out | {"heads.head.weight": zeros(10, WIDTH), "heads.head.bias": zeros(10)}


# --- writing the files


def save(content: Mapping[str, Any], path: Path) -> Path:
    """Write a file in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def in_hub_cache(cache: Path, repository: str, name: str, content: Mapping[str, Any]) -> Path:
    """Write a file into the cache of Hugging Face's client."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abcd")
    return save(content, folder / "snapshots" / "0123abcd" / name)


Layout = Callable[[State], Mapping[str, Any]]
