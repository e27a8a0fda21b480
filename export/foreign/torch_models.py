"""PyTorch models from elsewhere: recurrent stacks become native bundles, others are traced.

A stack of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` between an embedding and a linear head is what a
generator of this project is, under other names: it is exported as one, with single operators, a
step in int8 and prefill by sequence, through the same parity gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundle.manifest import FP32, GENERATE, INT8, STEP
from bundle.store import Bundle
from bundle.tokenizer import Tokenizer
from export.bundles import export_bundle
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping, ModelMapping, check_mapping
from export.foreign.vocabularies import tokenizer_of
from export.quality import SteppedModel
from training.checkpoint import Figure, TrainedModel
from training.models import build, config_to_json
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions

LIMITS = {"input_tokens": 4096, "output_tokens": 4096}

# Blocks of rows that a layer's weights have.
_CELLS = {4: "lstm", 3: "gru", 1: "rnn"}
_PARTS = ("embedding", "rnn", "output")

# Of a logit, relative to the largest of its row: what a model may differ by from the module that
# it was made of, which runs other kernels.
_TOLERANCE = 1e-4

# Tokens that the model draws itself, by which the step in int8 is compared with the one in fp32.
_STREAMS, _TOKENS = 16, 64


@dataclass(frozen=True)
class Parts:
    """Prefixes of names in a state_dict. rnn: of each module in a row, the first one first."""

    embedding: str
    rnn: tuple[str, ...]
    output: str

    @classmethod
    def of(cls, mapping: Mapping[str, str]) -> Parts:
        """``rnn`` with plus signs between where there are several. Raises ImportRefused."""
        if set(mapping) != set(_PARTS):
            raise ImportRefused(
                f"the parts of a model are {', '.join(_PARTS)}, each with the name that it has in "
                f"the weights; given are {', '.join(mapping) or 'none'}"
            )
        return cls(mapping["embedding"], tuple(mapping["rnn"].split("+")), mapping["output"])


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote of a state_dict, by name; code in it is not
    run. A checkpoint that has it under ``state_dict``, ``model_state_dict`` or ``model`` will do.

    Raises ImportRefused.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler that refuses, a zip that is none, a file not there
        text = " ".join(str(error).split())[:300]
        raise ImportRefused(
            f"{path} cannot be loaded as weights alone ({text}); save the state_dict: "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ImportRefused(f"{path} holds no state_dict")
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    if len(tensors) < len(content):
        raise ImportRefused(f"{path} holds more than tensors; save the state_dict alone")
    return tensors


def trained_from_weights(
    weights: Mapping[str, Tensor],
    parts: Parts,
    name: str,
    tokenizer: Tokenizer,
    description: str = "",
    limits: Mapping[str, int] | None = None,
    training: Mapping[str, Any] | None = None,
    add_bos_token: bool = False,
) -> TrainedModel:
    """A generator of this project with the weights of another's.

    add_bos_token: whether every text begins with the tokenizer's ``bos``.

    Raises ImportRefused for weights that such a model does not have, by their names.
    """
    left = dict(weights)
    embedding = _taken(left, f"{parts.embedding}.weight", 2)
    layers = [layer for prefix in parts.rnn for layer in _layers(left, prefix)]
    cell, hidden = _same(layers)
    output = _taken(left, f"{parts.output}.weight", 2)
    bias = left.pop(f"{parts.output}.bias", None)
    if left:
        raise ImportRefused(
            f"the weights hold {sorted(left)[0]!r} beside embedding, recurrent layers and output "
            f"({len(left)} such); give from_torch the module with step(inputs, state)"
        )
    sizes = {
        "the embedding's rows": (len(embedding), len(tokenizer.vocabulary)),
        "the output's rows": (len(output), len(tokenizer.vocabulary)),
        "the output's columns": (output.shape[1], hidden),
        "the first layer's columns": (layers[0]["weight_ih"].shape[1], embedding.shape[1]),
    }
    for what, (found, wanted) in sizes.items():
        if found != wanted:
            raise ImportRefused(f"{what} are {found}, and {wanted} are needed")
    is_tied = torch.equal(embedding, output) if embedding.shape == output.shape else False
    config = GeneratorConfig(
        vocabulary_size=len(embedding),
        embedding_size=embedding.shape[1],
        recurrent=RecurrentOptions(cell, hidden, layers=len(layers)),
        tied=is_tied,
    )
    state = {
        "embedding.weight": embedding,
        "output.weight": output,
        "output.bias": torch.zeros(len(output)) if bias is None else bias.float(),
    }
    for number, layer in enumerate(layers):
        state |= _named(number, cell, layer)
    expected = build(config).state_dict()
    assert state.keys() == expected.keys(), "a model has the weights of its configuration"
    return TrainedModel(
        name=name,
        description=description,
        config=config_to_json(config),
        weights=state,
        tokenizers={"input": tokenizer, "output": tokenizer},
        limits={**LIMITS, **(limits or {})},
        training=dict(training or {}),
        add_bos_token=add_bos_token or None,
    )


def _taken(weights: dict[str, Tensor], name: str, axes: int) -> Tensor:
    if name not in weights:
        raise ImportRefused(f"the weights hold no {name!r}; they hold {', '.join(sorted(weights))}")
    found = weights.pop(name)
    if found.dim() != axes or not found.is_floating_point():
        raise ImportRefused(f"{name!r} is {found.dtype} {list(found.shape)}, not of {axes} axes")
    if not torch.isfinite(found).all():
        raise ImportRefused(f"{name!r} holds NaN or infinity")
    return found.float().contiguous()


def _layers(weights: dict[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """Each layer's weights, of a module of layers or of a single cell."""
    for name in sorted(weights):
        if name.startswith(f"{prefix}.") and ("_reverse" in name or "weight_hr" in name):
            raise ImportRefused(
                f"{name!r}: a layer that reads from the right, or projects its state, cannot "
                "generate as one operator; give from_torch the module with step(inputs, state)"
            )
    suffixes = [""] if f"{prefix}.weight_ih" in weights else []
    while not suffixes or suffixes[0]:
        suffix = f"_l{len(suffixes)}"
        if f"{prefix}.weight_ih{suffix}" not in weights:
            break
        suffixes.append(suffix)
    if not suffixes:
        raise ImportRefused(
            f"the weights hold no {prefix + '.weight_ih_l0'!r}; they hold "
            f"{', '.join(sorted(weights))}"
        )
    return [_layer(weights, prefix, suffix) for suffix in suffixes]


def _layer(weights: dict[str, Tensor], prefix: str, suffix: str) -> dict[str, Tensor]:
    layer = {
        kind: _taken(weights, f"{prefix}.{kind}{suffix}", 2) for kind in ("weight_ih", "weight_hh")
    }
    for kind in ("bias_ih", "bias_hh"):
        name = f"{prefix}.{kind}{suffix}"
        rows = len(layer["weight_ih"])
        layer[kind] = _taken(weights, name, 1) if name in weights else torch.zeros(rows)
    return layer


def _same(layers: Sequence[Mapping[str, Tensor]]) -> tuple[str, int]:
    """Cell and hidden size of all layers."""
    found = set()
    for layer in layers:
        rows, hidden = layer["weight_hh"].shape
        cell = _CELLS.get(rows // hidden if rows % hidden == 0 else 0)
        if cell is None or len(layer["weight_ih"]) != rows:
            raise ImportRefused(f"a layer's weights are {rows} × {hidden}: no LSTM, GRU or RNN")
        found.add((cell, hidden))
    if len(found) > 1:
        raise ImportRefused(
            f"the layers differ ({', '.join(f'{c} of {h}' for c, h in sorted(found))}); give "
            "from_torch the module with step(inputs, state)"
        )
    return found.pop()


def _named(number: int, cell: str, layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's weights as a generator of this project names them."""
    prefix = f"stack.layers.{number}"
    if cell != "rnn":
        return {f"{prefix}.network.{kind}_l0": tensor for kind, tensor in layer.items()}
    inner = f"{prefix}.directions.0.cell"
    return {
        f"{inner}.U.weight": layer["weight_ih"],
        f"{inner}.U.bias": layer["bias_ih"] + layer["bias_hh"],
        f"{inner}.W.weight": layer["weight_hh"],
    }


def export_weights(trained: TrainedModel, target: Path, int8: bool) -> Bundle:
    """Through the parity gate. int8: with a step in int8, and what it costs measured on tokens that
    the model draws itself: there is no held-out text of a model from elsewhere.

    Raises ParityMissed and ExportRefused.
    """
    if not int8:
        return export_bundle(trained, target)
    with_int8 = replace(trained, precisions={INT8: ()})
    return export_bundle(with_int8, target, lambda folder: _agreement(trained, folder))


def _agreement(trained: TrainedModel, folder: Path) -> tuple[Figure, ...]:
    tokens = _drawn(trained)
    likeliest = [
        SteppedModel(folder, graph)(tokens, None)[0].argmax(dim=2)
        for graph in ("step_int8", "step")
    ]
    same = (likeliest[0] == likeliest[1]).double().mean().item()
    return (
        Figure(
            "same likeliest token as fp32",
            100 * same,
            "%",
            "texts that the model drew itself",
            tokens.numel(),
            str(trained.training.get("command", "")),
            precision=INT8,
        ),
        Figure(
            "same likeliest token as fp32",
            100.0,
            "%",
            "texts that the model drew itself",
            tokens.numel(),
            str(trained.training.get("command", "")),
            precision=FP32,
        ),
    )


@torch.no_grad()
def _drawn(trained: TrainedModel) -> Tensor:
    """(streams, tokens) int64, each drawn after those before it."""
    model: Any = trained.build()
    vocabulary = trained.tokenizers["output"].vocabulary
    allowed = [i for i in range(len(vocabulary)) if i not in vocabulary.never_sampled_ids]
    random = torch.Generator().manual_seed(0)
    token = torch.tensor(allowed)[torch.arange(_STREAMS) % len(allowed)]
    logits, state = model(token.unsqueeze(1))
    drawn = [token]
    banned = torch.full((len(vocabulary),), float("-inf"))
    banned[allowed] = 0.0
    for _ in range(_TOKENS - 1):
        weights = torch.softmax(logits.reshape(_STREAMS, -1) + banned, dim=1)
        token = torch.multinomial(weights, 1, generator=random).squeeze(1)
        drawn.append(token)
        logits, state = model.step(token, state)
    return torch.stack(drawn, dim=1)


def check_against(
    trained: TrainedModel, reference: Callable[[Tensor], Tensor], seed: int = 0
) -> float:
    """The largest difference of a logit from ``reference``'s, of the largest of its row.

    reference: tokens (batch, time) int64 → logits (batch, time, vocabulary). Raises ImportRefused.
    """
    model: Any = trained.build()
    random = np.random.default_rng(seed)
    worst = 0.0
    for batch, length in ((1, 1), (1, 9), (3, 7)):
        tokens = torch.from_numpy(random.integers(0, model.config.vocabulary_size, (batch, length)))
        with torch.no_grad():
            theirs, ours = reference(tokens).float(), model(tokens)[0]
        if theirs.shape != ours.shape:
            raise ImportRefused(
                f"the reference gives {list(theirs.shape)} for tokens {[batch, length]}; logits "
                f"are {list(ours.shape)}"
            )
        scale = theirs.abs().amax(dim=2, keepdim=True).clamp(min=1e-6)
        worst = max(worst, float(((theirs - ours).abs() / scale).max()))
    if not worst <= _TOLERANCE:
        raise ImportRefused(
            f"the parts alone are not the module: its logits differ by {worst:.2g} of the largest "
            "of their row; is there a step between embedding, recurrent layers and output that has "
            "no weights? Give from_torch the module with step(inputs, state)"
        )
    return worst


def _refuse_unread(when: str, **options: object) -> None:
    """Raises ImportRefused for one that is given."""
    for name, value in options.items():
        if value:
            raise ImportRefused(f"from_torch does not read {name!r} {when}; leave it out")


def from_torch(
    module: nn.Module | Mapping[str, Tensor],
    *,
    name: str,
    task: str = GENERATE,
    models: Path | str = "models",
    version: int = 1,
    description: str = "",
    limits: Mapping[str, int] | None = None,
    parts: Mapping[str, str] | None = None,
    reference: Callable[[Tensor], Tensor] | None = None,
    int8: bool = False,
    vocabulary: Sequence[str] = (),
    special: Mapping[str, str] | None = None,
    add_bos_token: bool = False,
    kind: str = "",
    lowercase: bool = False,
    inputs: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Tensor] | None = None,
    outputs: Sequence[str] = (),
    frame_seconds: float = 0.0,
    attributes: Mapping[str, int | float | str] | None = None,
    allow_inexact: bool = False,
) -> Bundle:
    """A bundle ``models/NAME/VERSION`` of a PyTorch recurrent network.

    With ``parts`` (names of its ``embedding``, ``rnn`` and ``output``), ``module`` or its
    state_dict is a stack of nn.LSTM, nn.GRU or nn.RNN and becomes a native bundle of the task
    ``generate``. reference: tokens (batch, time) → logits (batch, time, vocabulary) of the original
    model, compared before anything is written. int8: a step in int8 as well.

    Without, ``module.step(inputs, state) → (outputs, state)`` is traced, for the task ``step`` or
    ``generate``. inputs, state: tensors of one row by name, the batch first and 1; the method gets
    a dictionary of each and returns two. Those of ``inputs`` are examples, those of ``state`` are
    what a new stream begins with. outputs: names of its outputs, in their order; of a generator,
    ``logits``, and its one input is ``token`` (batch,) int64.

    vocabulary: a generator's symbols by id. special: its symbols for ``pad``, ``unk``, ``bos`` and
    ``eos``. add_bos_token: whether every text begins with that of ``bos``, as in training; an empty
    one does anyway. kind: of its tokenizer. lowercase: whether it lowercases texts.

    Raises ImportRefused, ParityMissed and ExportRefused, and then leaves what was there.
    """
    folder = Path(models)
    mapping = ModelMapping(
        name=name,
        task=task,
        graphs=(GraphMapping(Path("module.onnx")),),
        version=version,
        description=description,
        frame_seconds=frame_seconds,
        attributes=dict(attributes or {}),
        allow_inexact=allow_inexact,
        special=dict(special or {}),
        add_bos_token=add_bos_token,
        kind=kind,
        lowercase=lowercase or None,
        limits=dict(limits or {}),
    )
    check_mapping(mapping)
    if parts is None:
        _refuse_unread("without parts", reference=reference, int8=int8)
        if task == STEP:
            _refuse_unread("for the task 'step'", vocabulary=vocabulary)
        from export.foreign.traced import traced_bundle

        if not isinstance(module, nn.Module) or not callable(getattr(module, "step", None)):
            raise ImportRefused("the module has no step(inputs, state); name its parts instead")
        return traced_bundle(
            module, mapping, folder, dict(inputs or {}), dict(state or {}), outputs, vocabulary
        )
    if task != GENERATE:
        raise ImportRefused(f"parts make a model of the task 'generate', not {task!r}")
    _refuse_unread(
        "with parts", inputs=inputs, state=state, outputs=outputs, allow_inexact=allow_inexact
    )
    weights = module.state_dict() if isinstance(module, nn.Module) else module
    trained = trained_from_weights(
        weights,
        Parts.of(parts),
        name,
        tokenizer_of(list(vocabulary), special or {}, kind, lowercase),
        description,
        limits,
        {"command": "export.from_torch", "imported": [{"parts": dict(parts)}]},
        add_bos_token,
    )
    if reference is not None:
        check_against(trained, reference)
    return export_weights(trained, folder / name / str(version), int8)
