"""What a recurrent stack is made of, and which combinations make no sense."""

from __future__ import annotations

from dataclasses import dataclass

from training.models.cells import CELLS

HIDDEN, OUTPUT, HIDDEN_AND_OUTPUT = "hidden", "output", "hidden_and_output"
RECURRENCES = (HIDDEN, OUTPUT, HIDDEN_AND_OUTPUT)
# Cells that PyTorch and ONNX run as one operator over a whole sequence.
FUSED = ("gru", "lstm")


class DesignInvalid(ValueError):
    """A model option that cannot be built; the message lists what can."""


@dataclass(frozen=True)
class RecurrentOptions:
    """What a stack of recurrent layers is made of.

    recurrence: what of a step the next one reads: its ``hidden`` state, the ``output`` that was
        made of it, or both. Where the output is read, the model puts it beside the input.
    layers: stacked recurrent layers, the lecture's depth (a).
    input_mlp, transition_mlp, output_mlp: tanh layers between input and state, state and next
        state, state and output: depth (b); Pascanu et al. 2014, arXiv:1312.6026.
    skip: shortcuts around each of those and from layer to layer: depth (c).
    dropout: share of a layer's output that is dropped between layers while training.
    one_mask: every dropout of the model drops the same features at all steps of a sequence.
    weight_drop: share of the weights from hidden to hidden that a sequence is trained without.

    Raises DesignInvalid for what does not exist, and for what does not go together.
    """

    cell: str = "lstm"
    hidden_size: int = 128
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    recurrence: str = HIDDEN
    input_mlp: int = 0
    transition_mlp: int = 0
    output_mlp: int = 0
    skip: bool = False
    one_mask: bool = False
    weight_drop: float = 0.0

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise DesignInvalid(f"cell {self.cell!r} is not one of {', '.join(CELLS)}")
        if self.recurrence not in RECURRENCES:
            known = ", ".join(RECURRENCES)
            raise DesignInvalid(f"recurrence {self.recurrence!r} is not one of {known}")
        if self.hidden_size < 1 or self.layers < 1:
            raise DesignInvalid("hidden_size and layers are at least 1")
        if min(self._mlps) < 0:
            raise DesignInvalid("input_mlp, transition_mlp and output_mlp are at least 0")
        self._check_combination()

    def _check_combination(self) -> None:
        if self.reads_output and self.bidirectional:
            raise DesignInvalid(
                f"recurrence {self.recurrence!r} goes from left to right: what reads from the "
                "right has no output yet; choose recurrence 'hidden' or one direction"
            )
        if not self.carries_hidden and self.cell != "rnn":
            raise DesignInvalid(
                f"recurrence 'output' carries no hidden state, which the gates of {self.cell!r} "
                "are there for; choose cell 'rnn'"
            )
        if not self.carries_hidden and self.transition_mlp:
            raise DesignInvalid(
                "recurrence 'output' has no way from hidden state to hidden state for "
                "transition_mlp to deepen; leave it at 0"
            )
        if self.weight_drop and (self.cell not in FUSED or self.transition_mlp):
            raise DesignInvalid(
                "weight_drop is for layers that run as one operator; choose cell 'gru' or 'lstm' "
                "without transition_mlp, or leave it at 0"
            )
        if self.skip and self.layers == 1 and not any(self._mlps):
            raise DesignInvalid("skip has nothing to go around; add layers or an MLP, or leave it")

    @property
    def _mlps(self) -> tuple[int, int, int]:
        return self.input_mlp, self.transition_mlp, self.output_mlp

    @property
    def carries_hidden(self) -> bool:
        return self.recurrence != OUTPUT

    @property
    def reads_output(self) -> bool:
        return self.recurrence != HIDDEN

    @property
    def output_size(self) -> int:
        return self.hidden_size * (2 if self.bidirectional else 1)

    @property
    def tensors_per_layer(self) -> int:
        if not self.carries_hidden:
            return 0
        return 2 if self.cell == "lstm" else 1


def check_hidden_recurrence(options: RecurrentOptions, model: str, reason: str) -> None:
    """Raises DesignInvalid where a model could not feed its output back."""
    if options.reads_output:
        raise DesignInvalid(f"{model} has recurrence 'hidden' only: {reason}")


def check_one_direction(options: RecurrentOptions, model: str, reason: str) -> None:
    """Raises DesignInvalid where a model could not read from the right."""
    if options.bidirectional:
        raise DesignInvalid(f"{model} reads in one direction only: {reason}")


def check_tied(embedding_size: int, options: RecurrentOptions) -> None:
    """Raises DesignInvalid where what is said has another size than what is read.

    One matrix for both: Press and Wolf 2017, arXiv:1608.05859.
    """
    if embedding_size != options.output_size:
        raise DesignInvalid(
            f"tied needs an embedding_size of the hidden_size, {options.output_size}, "
            f"not {embedding_size}"
        )
