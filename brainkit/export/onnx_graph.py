"""The ONNX graph of an encoder: the network from torch.onnx.export, then the readout node by node."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from brainkit import encoder_file
from brainkit._version import __version__
from brainkit.encoder_file import EncoderInfo
from brainkit.encoder_file.graph_check import OPERATORS
from brainkit.errors import BrainkitError
from brainkit.export.ensemble import append_members
from brainkit.export.onnx_readout import Readout, append_readout
from brainkit.export.token_module import token_map_sizes, token_module
from brainkit.utils.text import root_cause

if TYPE_CHECKING:
    import onnx

    from brainkit.model.factor_topy import Folded

OPSET = 20
IR_VERSION = 10  # the newest that ONNX Runtime 1.19 reads; opset 20 needs 9


def build_onnx(
    folded: Folded, readouts: Sequence[Readout], backbone: Any, info: EncoderInfo, *, storage: str = "float32"
) -> onnx.ModelProto:
    """The whole graph, with one readout per member of an ensemble."""
    import torch

    size = info.preprocessing.size
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    module = token_module(folded, backbone, info.preprocessing, token_map_sizes(folded, backbone, info)).to(device)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8, device=device)
    name = info.backbone.get("name", type(backbone).__name__)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["images"],
                output_names=["tokens"],
                external_data=False,
                verbose=False,
            )
            assert program is not None
            network = sum(array.nbytes for v in program.model.graph.initializers.values() if (array := v.const_value))
            total = network + sum(readout.nbytes for readout in readouts)
            check_size(total // 2 if storage == "float16" else total, storage)
            proto = program.model_proto
    except BrainkitError:
        raise
    except Exception as error:  # the exporter raises errors of any class
        raise BrainkitError(f"backbone {name}: torch.onnx.export cannot export it: {root_cause(error)}") from error
    tidy(proto)

    def append(model: onnx.ModelProto, readout: Readout) -> None:
        append_readout(model, readout, folded.grid, len(folded.layers))

    if len(readouts) > 1:
        append_members(proto, readouts, append, folded.grid, len(folded.layers))
    else:
        append(proto, readouts[0])
    check_operators(proto, name)
    return proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No output, logs or warnings: those of torch's exporters are about their own deprecations."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def tidy(proto: onnx.ModelProto) -> None:
    """Remove the exporter's own notes, such as stack traces with this machine's paths."""
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "brainkit", __version__
    proto.doc_string = ""
    proto.graph.name = "encoder"
    proto.graph.doc_string = ""
    for entries in (proto.metadata_props, proto.graph.metadata_props, proto.graph.value_info):
        del entries[:]
    for item in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def check_operators(proto: onnx.ModelProto, name: str) -> None:
    """Raise BrainkitError for operators that are not standard or that prediction refuses; tidy the list of opsets."""
    foreign = sorted(
        {f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign or proto.functions:
        found = ", ".join(foreign) or f"{len(proto.functions)} functions"
        raise BrainkitError(f"backbone {name}: its ONNX graph must have standard operators only, found {found}")
    if others := sorted({node.op_type for node in proto.graph.node} - OPERATORS):
        raise BrainkitError(f"backbone {name}: its ONNX graph has operators that predict refuses: {', '.join(others)}")
    standard = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(standard)


def check_size(size: int, storage: str) -> None:
    """Raise BrainkitError if a model of `size` bytes exceeds the limit of ONNX files."""
    if size + encoder_file.MAX_METADATA > encoder_file.MAX_FILE:
        advice = "export fewer vertices with --roi or --vertices"
        if storage != "float16":
            advice = f"use --fp16, which halves the file, or {advice}"
        raise BrainkitError(
            f"the encoder file must be at most 2 GB, as every ONNX file, got {size / 1e9:.1f} GB; {advice}"
        )


def serialise(proto: onnx.ModelProto, path: str | os.PathLike[str]) -> bytes:
    """The bytes of a model that passes the ONNX checker; `path` is for errors."""
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=False)
    except onnx.checker.ValidationError as error:
        raise BrainkitError(f"{path}: not written: the ONNX checker rejects the model: {root_cause(error)}") from error
    return bytes(proto.SerializeToString())
