"""The metadata of an encoder file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brainkit.cortex.rois import RoiTable
from brainkit.cortex.vertices import Vertices
from brainkit.cortex.volume import Volume
from brainkit.images import Preprocessing
from brainkit.metrics.uncertainty import MapUncertainty
from brainkit.utils.arrays import Arrays
from brainkit.utils.text import plural


@dataclass(frozen=True, eq=False)
class EncoderInfo:
    """The metadata of an encoder file; V vertices, L layers.

    Parameters
    ----------
    vertices : Vertices
        Cortical space and vertex ids of the V columns of ``fmri``.
    rois : RoiTable
        Regions as indices into 0..V-1.
    preprocessing : Preprocessing
        How an image becomes the model's input.
    layers : tuple of str
        The L layers of the backbone, in the order of `layer_weights` and of ``tokens``.
    layer_weights : array of shape (V, L), float32
        Softmax weights over the layers; stored as float16.
    locations : array of shape (V, 2), float32
        (x right, y down), -1..1 over the image.
    scale : array of shape (V,), float32
        0 = local tokens only, 1 = the global token only.
    r, R2 : array of shape (V,), float32
        Correlation and coefficient of determination on the test images; NaN where unknown.
    noise_ceiling : array of shape (V,), float32
        Ceiling on r squared, in [0, 1]; NaN where unknown.
    grid : tuple of int
        Height and width (H, W) of the token grid; P = H*W. The export sets it from the model.
    bottleneck : int
        D, the number of channels of ``tokens``; for an ensemble, of all members together. The export sets it from
        the model.
    units : str
        Of the predictions, for example ``"z-scored percent signal change"``.
    gauge : str
        ``"unit"``, or ``"published"``: whether the selectors of different layers can be compared.
    note : str or None
        To be shown wherever the predictions are, for example that the subject is simulated.
    licence : str
        The licence terms, as one text.
    terms : dict of str to str
        The same in three parts: brainkit, backbone, data; empty in files written without them.
    citation : str
        What to cite, one reference per line; may be empty.
    backbone : dict
        name, weights_hash, pretrained, licence, source.
    provenance : dict
        data hash, split, seed, versions, config.
    certificate : dict or None
        The parity certificate, written by the export.
    volume : Volume or None
        Which voxels the columns are, if the data are volumetric.
    form : str or None
        How the readout's arrays are laid out: ``"cells"``, one group for each four cells that vertices read, or
        ``"padded"``, groups of 128 rows; None if the file does not say.
    storage : str
        ``"float32"``, or ``"float16"``: how the graph's large constants are stored; it computes in float32.
    quantised : dict or None
        What the graph computes in int8: products, weights, activations, drift. None: nothing.
    ensemble : dict or None
        members (how many models the predictions are averaged over), runs (one dict each). None: one model.
    image_hashes : dict of str to array of shape (n,), int64, or None
        The images of its training, by the side of the split (``train``, ``validation``, ``test``): the start of each
        one's pixel hash, see :func:`brainkit.data.stimuli.short_hashes`; increasing. None if the file does not say.
    uncertainty : MapUncertainty or None
        Standard errors of the vertices' depth, location and scale; None: not measured.
    digest : str or None
        SHA-256 of the file it was read from (hex), None before it is written.
    container : str
        The kind of file it was read from: ``"onnx"``, ``"torchscript"`` or ``"pt2"``.
    """

    vertices: Vertices
    rois: RoiTable
    preprocessing: Preprocessing
    layers: tuple[str, ...]
    layer_weights: np.ndarray
    locations: np.ndarray
    scale: np.ndarray
    r: np.ndarray
    R2: np.ndarray
    noise_ceiling: np.ndarray
    grid: tuple[int, int] = (8, 8)
    bottleneck: int = 64
    units: str = ""
    gauge: str = "unit"
    note: str | None = None
    licence: str = ""
    terms: dict[str, str] = field(default_factory=dict)
    citation: str = ""
    backbone: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any] | None = None
    volume: Volume | None = None
    form: str | None = None
    storage: str = "float32"
    quantised: dict[str, Any] | None = None
    ensemble: dict[str, Any] | None = None
    image_hashes: dict[str, np.ndarray] | None = None
    uncertainty: MapUncertainty | None = None
    digest: str | None = None
    container: str = "onnx"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rois", self.rois.on(self.vertices, self.volume))

    def __repr__(self) -> str:
        what = [
            repr(self.backbone.get("name", "unnamed"))[:80],
            f"{plural(len(self.vertices), 'vertex', 'vertices')} of {self.vertices.space}",
            plural(len(self.rois), "ROI"),
            plural(len(self.layers), "layer"),
            f"sha256 {self.digest[:12]}" if self.digest else "not written",
        ]
        return f"EncoderInfo({', '.join(what)})"

    @property
    def selectors(self) -> dict[str, np.ndarray]:
        """``layer_weights`` (V, L), ``locations`` (V, 2) and ``scale`` (V,), float32."""
        return Arrays(layer_weights=self.layer_weights, locations=self.locations, scale=self.scale)
