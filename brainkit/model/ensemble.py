"""Several trained models that read the same tokens, as one that predicts their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from brainkit.errors import UsageError
from brainkit.model.factor_topy import FactorTopy, Folded


@dataclass(frozen=True)
class FoldedEnsemble(Folded):
    """Several folded models, M of them: their bottlenecks side by side, so that one product makes all tokens.

    The bottlenecks give M*D channels, member m's from m*D to (m+1)*D. ``weight`` is (V, M*D), likewise side by side;
    the selectors and the bias are the mean over the members. What a member computes with stands in ``members``.
    """

    members: tuple[Folded, ...] = ()


class Ensemble(nn.Module):
    """The mean of several models of the same tokens and vertices.

    Parameters
    ----------
    members : sequence of FactorTopy
        Two or more, with the same layers, widths, grid, resize, gauge, channels D and vertices V.

    Raises
    ------
    UsageError
        If there are fewer, or they differ; it says in what.
    """

    def __init__(self, members: Sequence[FactorTopy]) -> None:
        super().__init__()
        if len(members) < 2:
            raise UsageError(f"an ensemble must have two members or more, got {len(members)}")
        first = members[0]
        for member in members[1:]:
            for what in ("layers", "grid", "resize", "gauge"):
                if getattr(member, what) != getattr(first, what):
                    raise UsageError(
                        f"the members of an ensemble must have one {what}, got {getattr(first, what)} and "
                        f"{getattr(member, what)}"
                    )
            if member.weight.shape != first.weight.shape:
                raise UsageError(
                    "the members of an ensemble must have as many vertices and channels, "
                    f"got {tuple(first.weight.shape)} and {tuple(member.weight.shape)}"
                )
        self.members = nn.ModuleList(members)
        self.layers, self.gauge = first.layers, first.gauge

    @property
    def weight(self) -> Tensor:
        """The first member's, (V, D): tells the vertices' number and the device."""
        return cast(FactorTopy, self.members[0]).weight

    def forward(self, local_tokens: Mapping[str, Tensor], global_tokens: Mapping[str, Tensor]) -> Tensor:
        """The mean of the members' predictions, (B, V); arguments as of :meth:`FactorTopy.forward`."""
        return torch.stack([member(local_tokens, global_tokens) for member in self.members]).mean(0)

    def folded(self) -> FoldedEnsemble:
        """Everything that is constant, see :meth:`FactorTopy.folded`."""
        return joined([cast(FactorTopy, member).folded() for member in self.members])


def joined(members: Sequence[Folded]) -> FoldedEnsemble:
    """Folded models of the same layers, grid and vertices, as one."""
    first = members[0]

    def side_by_side(what: str) -> dict[str, np.ndarray]:
        return {layer: np.concatenate([getattr(member, what)[layer] for member in members]) for layer in first.layers}

    def mean(what: str) -> np.ndarray:
        return np.asarray(np.mean([getattr(member, what) for member in members], axis=0))

    return FoldedEnsemble(
        layers=first.layers,
        grid=first.grid,
        local_weight=side_by_side("local_weight"),
        local_bias=side_by_side("local_bias"),
        global_weight=side_by_side("global_weight"),
        global_bias=side_by_side("global_bias"),
        layer_weights=mean("layer_weights"),
        locations=mean("locations"),
        scale=mean("scale"),
        weight=np.concatenate([member.weight for member in members], 1),
        bias=mean("bias"),
        resize=first.resize,
        members=tuple(members),
    )
