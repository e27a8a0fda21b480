"""The draw as a graph of its own, from logits on."""

import functools

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from bundle.manifest import BATCH, RETRIES, step_inputs
from bundle.sampling import GRAPH_PARAMETERS
from export.draw_nodes import DRAW_INPUTS, DRAW_OUTPUTS
from export.operators import DRAW, DRAW_DOMAIN
from export.opset import OPSET
from export.sampler import draw_functions

_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def model_of(vocabulary):
    ports = {spec.name: spec for spec in step_inputs(vocabulary)}
    inputs = [
        helper.make_tensor_value_info(name, _TYPES[ports[name].dtype], ports[name].shape)
        for name in DRAW_INPUTS[2:]
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, vocabulary])
    suppressed = helper.make_tensor_value_info("suppressed", TensorProto.FLOAT, [vocabulary])
    outputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in zip(
            DRAW_OUTPUTS,
            (TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT),
            ([BATCH], [BATCH], [BATCH, vocabulary]),
            strict=True,
        )
    ]
    node = helper.make_node(DRAW, DRAW_INPUTS, DRAW_OUTPUTS, domain=DRAW_DOMAIN)
    graph = helper.make_graph([node], "draw", [logits, suppressed, *inputs], outputs)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DRAW_DOMAIN, 1)],
        ir_version=10,
        functions=draw_functions(vocabulary),
    )
    onnx.checker.check_model(model)
    return model


@functools.cache
def session_of(vocabulary, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model_of(vocabulary).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def feed_of(logits, **chosen):
    """What is not chosen is neutral, and uniforms are random; nothing is suppressed or adjusted."""
    rows, vocabulary = logits.shape
    random = np.random.default_rng(7)
    feed = {
        "logits": logits,
        "suppressed": np.zeros(vocabulary, np.float32),
        "uniform": random.random(rows, dtype=np.float32),
        "retries": random.random((rows, RETRIES), dtype=np.float32),
        "adjusted": np.zeros(0, np.int64),
        "seen": np.zeros((0, vocabulary), bool),
        "bias": np.zeros((0, vocabulary), np.float32),
    }
    for name, parameter in GRAPH_PARAMETERS.items():
        value = np.asarray(chosen.pop(name, parameter.neutral), parameter.dtype)
        feed[name] = np.broadcast_to(value, (rows,)).copy()
    return feed | chosen


def rows_of(feed, which):
    """Those rows of a feed, in this order."""
    which = np.asarray(which)
    part = {
        name: array if name in ("suppressed", "seen", "bias", "adjusted") else array[which]
        for name, array in feed.items()
    }
    places = {int(row): place for place, row in enumerate(feed["adjusted"])}
    here = [(new, places[row]) for new, row in enumerate(which.tolist()) if row in places]
    part["adjusted"] = np.array([new for new, _ in here], np.int64)
    kept = [place for _, place in here]
    return part | {name: feed[name][kept] for name in ("seen", "bias")}


def draw(feed):
    """Token, log-probability and all log-probabilities, as the graph gives them."""
    return session_of(feed["logits"].shape[1]).run(None, feed)
