"""ONNX graphs built node by node: no exporter, no torch, the same weights always give the same bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.agent.features import FEATURES, ODD_FEATURES
from training.network import BENT, BOUND, SQUARE_SCALE

OPSET: Final = 17
IR_VERSION: Final = 8

Arrays = Mapping[str, Any]
"""Weights by name, float32."""


def edge_graph(weights: Arrays) -> bytes:
    """Return the default model's file: ``features`` (rows, FEATURES) to ``p_up`` (rows)."""
    nodes = [
        helper.make_node("Slice", ["features", "zero", "odd_end", "one"], ["odd"]),
        helper.make_node("Slice", ["features", "odd_end", "even_end", "one"], ["raw"]),
        helper.make_node("Sub", ["raw", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["even"]),
        helper.make_node("Mul", ["even", "even"], ["squared"]),
        helper.make_node("Mul", ["squared", "square_scale"], ["squares"]),
        helper.make_node("Concat", ["even", "squares"], ["evidence"], axis=1),
        *_silu("evidence", "first", "hidden1"),
        *_silu("hidden1", "second", "hidden2"),
        helper.make_node("Gemm", ["hidden2", "gate.weight", "gate.bias"], ["opened"], transB=1),
        helper.make_node("Gemm", ["even", "direct.weight"], ["passed"], transB=1),
        helper.make_node("Add", ["opened", "passed"], ["gates"]),
        helper.make_node("Gemm", ["odd", "bend.weight"], ["bent_raw"], transB=1),
        helper.make_node("Tanh", ["bent_raw"], ["bent"]),
        helper.make_node("Concat", ["odd", "bent"], ["terms"], axis=1),
        helper.make_node("Mul", ["gates", "terms"], ["products"]),
        # Not ReduceSum: onnxruntime adds in an order that depends on the number of rows.
        helper.make_node("MatMul", ["products", "ones"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["probability"]),
        helper.make_node("Squeeze", ["probability", "one"], ["p_up"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "odd_end": np.array([ODD_FEATURES], np.int64),
        "even_end": np.array([FEATURES], np.int64),
        "one": np.array([1], np.int64),
        "low": np.array(-BOUND, np.float32),
        "high": np.array(BOUND, np.float32),
        "square_scale": np.array(SQUARE_SCALE, np.float32),
        "ones": np.ones((ODD_FEATURES + BENT, 1), np.float32),
    }
    outputs = [helper.make_tensor_value_info("p_up", TensorProto.FLOAT, ["rows"])]
    return _model("edge", nodes, {**constants, **weights}, outputs)


def policy_graph(weights: Arrays) -> bytes:
    """Return a policy's file: ``features`` to ``logits`` (rows, 3: hold, call, put) and ``value`` (rows).

    The weights are those of two tanh networks of two hidden layers, ``actor.N`` and ``critic.N``. The actor is averaged
    with its own answer to the mirrored market, in which call and put change places.
    """
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["seen"]),
        helper.make_node("Mul", ["seen", "mirror"], ["mirrored"]),
        *_tower("seen", "actor", "seen_logits"),
        *_tower("mirrored", "actor", "mirrored_logits"),
        helper.make_node("Gather", ["mirrored_logits", "swapped"], ["swapped_logits"], axis=1),
        helper.make_node("Add", ["seen_logits", "swapped_logits"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["logits"]),
        *_tower("seen", "critic", "values"),
        helper.make_node("Squeeze", ["values", "one"], ["value"]),
    ]
    constants = {
        "one": np.array([1], np.int64),
        "swapped": np.array([0, 2, 1], np.int64),
        "half": np.array(0.5, np.float32),
        "low": np.array(-BOUND, np.float32),
        "high": np.array(BOUND, np.float32),
    }
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 3]),
        helper.make_tensor_value_info("value", TensorProto.FLOAT, ["rows"]),
    ]
    return _model("policy", nodes, {**constants, **weights}, outputs)


def _tower(source: str, head: str, target: str) -> list[onnx.NodeProto]:
    return [
        *_tanh(source, f"{head}.0", f"{target}_hidden1"),
        *_tanh(f"{target}_hidden1", f"{head}.1", f"{target}_hidden2"),
        helper.make_node("Gemm", [f"{target}_hidden2", f"{head}.2.weight", f"{head}.2.bias"], [target], transB=1),
    ]


def _silu(source: str, layer: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gemm", [source, f"{layer}.weight", f"{layer}.bias"], [f"{target}_raw"], transB=1),
        helper.make_node("Sigmoid", [f"{target}_raw"], [f"{target}_open"]),
        helper.make_node("Mul", [f"{target}_raw", f"{target}_open"], [target]),
    ]


def _tanh(source: str, layer: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gemm", [source, f"{layer}.weight", f"{layer}.bias"], [f"{target}_raw"], transB=1),
        helper.make_node("Tanh", [f"{target}_raw"], [target]),
    ]


def _model(name: str, nodes: Sequence[onnx.NodeProto], arrays: Arrays, outputs: Sequence[onnx.ValueInfoProto]) -> bytes:
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", FEATURES])
    tensors = [numpy_helper.from_array(np.ascontiguousarray(arrays[key]), key) for key in sorted(arrays)]
    graph = helper.make_graph(list(nodes), name, [features], list(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tradebot")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
