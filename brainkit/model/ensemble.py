"""The mean of several trained models that read the same tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from brainkit.errors import UsageError
from brainkit.model.factor_topy import FactorTopy, Folded


@torch.no_grad()
def select_vertices(model: FactorTopy, index: np.ndarray) -> FactorTopy:
    """A copy of a model with some of its vertices, by position (n,): it predicts for them what the model does."""
    selected = copy.deepcopy(model)
    rows = torch.from_numpy(np.asarray(index, np.int64))
    parts = (selected, selected.offsets, selected.free_selectors)
    for part in filter(None, parts):
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(parameter[rows], requires_grad=parameter.requires_grad))
    for name in ("response_mean", "response_std", "coordinates", "features"):
        if hasattr(selected, name):  # without topography there are no features
            setattr(selected, name, getattr(selected, name)[rows])
    return selected


@dataclass(frozen=True)
class FoldedEnsemble(Folded):
    """M folded models as one, with concatenated bottlenecks: one product computes all members' tokens.

    The bottlenecks have M*D channels, member m's from m*D to (m+1)*D; ``weight`` is (V, M*D) in the same order.
    Selectors and bias are means over members; the members' own are in ``members``.
    """

    members: tuple[Folded, ...] = ()

    @classmethod
    def from_members(cls, members: Sequence[Folded]) -> FoldedEnsemble:
        """Combine folded models of the same layers, grid and vertices."""
        first = members[0]

        def concatenated(field: str) -> dict[str, np.ndarray]:
            return {
                layer: np.concatenate([getattr(member, field)[layer] for member in members]) for layer in first.layers
            }

        def mean(field: str) -> np.ndarray:
            return np.asarray(np.mean([getattr(member, field) for member in members], axis=0))

        return cls(
            layers=first.layers,
            grid=first.grid,
            local_weight=concatenated("local_weight"),
            local_bias=concatenated("local_bias"),
            global_weight=concatenated("global_weight"),
            global_bias=concatenated("global_bias"),
            layer_weights=mean("layer_weights"),
            locations=mean("locations"),
            scale=mean("scale"),
            weight=np.concatenate([member.weight for member in members], 1),
            bias=mean("bias"),
            resize=first.resize,
            members=tuple(members),
        )


class Ensemble(nn.Module):
    """The mean of several models of the same tokens and vertices.

    Parameters
    ----------
    members : sequence of FactorTopy
        Two or more, with the same layers, widths, grid, resize, gauge, channels D and vertices V.

    Raises
    ------
    UsageError
        If there are fewer than two, or they differ in any of these.
    """

    def __init__(self, members: Sequence[FactorTopy]) -> None:
        super().__init__()
        if len(members) < 2:
            raise UsageError(f"an ensemble must have at least two members, got {len(members)}")
        first = members[0]
        for member in members[1:]:
            for name in ("layers", "grid", "resize", "gauge"):
                if getattr(member, name) != getattr(first, name):
                    raise UsageError(
                        f"members of an ensemble must have the same {name}, got {getattr(first, name)} and "
                        f"{getattr(member, name)}"
                    )
            if member.weight.shape != first.weight.shape:
                raise UsageError(
                    "members of an ensemble must have the same numbers of vertices and channels, "
                    f"got {tuple(first.weight.shape)} and {tuple(member.weight.shape)}"
                )
        self.members = nn.ModuleList(members)
        self.layers, self.gauge = first.layers, first.gauge

    @property
    def weight(self) -> Tensor:
        """The first member's weights (V, D), for their shape and device."""
        return cast(FactorTopy, self.members[0]).weight

    def forward(self, local_tokens: Mapping[str, Tensor], global_tokens: Mapping[str, Tensor]) -> Tensor:
        """The mean of the members' predictions (B, V); arguments as for :meth:`FactorTopy.forward`."""
        return torch.stack([member(local_tokens, global_tokens) for member in self.members]).mean(0)

    def folded(self) -> FoldedEnsemble:
        """The ensemble as constants, see :meth:`FactorTopy.folded`."""
        return FoldedEnsemble.from_members([cast(FactorTopy, member).folded() for member in self.members])
