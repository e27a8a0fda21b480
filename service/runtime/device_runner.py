"""Runs a generator's graphs on a device: batches of fixed sizes, state that stays there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime

from service.runtime.device_rows import DeviceRows
from service.runtime.runners import Array, PromptReader, State, inputs_read
from service.step_buffers import StepBuffers


class StateOnHost(Exception):
    """A step graph that wants its state in host memory, where a device was to keep it."""


def buckets_of(capacity: int) -> tuple[int, ...]:
    """The batch sizes that steps are padded to: powers of two, then the capacity."""
    return (*(1 << power for power in range((capacity - 1).bit_length())), capacity)


class DeviceRunner:
    """Prefills, and steps a batch padded to the next bucket.

    Prefilled states come back to the host, and go out again with the next moves of ``rows``:
    that is one copy for each stream, none for each step. Rows beyond the streams' own are
    computed like any other, from zeros at first, and nobody looks at what they give.
    """

    def __init__(
        self, prefiller: PromptReader, step: onnxruntime.InferenceSession, rows: DeviceRows
    ) -> None:
        """Raises StateOnHost."""
        self.prefiller = prefiller
        self.session = step
        self.buckets = buckets_of(rows.capacity)
        self._rows = rows
        self._controls: Mapping[str, Array] = {}
        self._buffers = StepBuffers({}, {})
        self._bindings: dict[tuple[int, int, int, bool], onnxruntime.IOBinding] = {}
        _check_state_inputs(step, rows)

    def attach(self, sides: tuple[StepBuffers, StepBuffers]) -> None:
        """Both sides hold the same arrays: the state, which is what they differ in, is not here."""
        self._controls = inputs_read(self.session, sides[0].inputs)
        self._buffers = sides[0]
        self._bindings.clear()

    def prefill(
        self, tokens: Sequence[Sequence[Any]], states: Sequence[State | None]
    ) -> list[State]:
        return self.prefiller.prefill(tokens, states)

    def step(self, side: int, rows: int) -> None:
        """``side`` is of before the moves that are made here; the rows know their own."""
        bucket = next(size for size in self.buckets if size >= rows)
        self._rows.settle(rows, bucket)
        binding = self._binding(bucket)
        # An input in host memory is copied to the device when it is bound, not when the graph
        # runs: what was bound for the step before would be read again (onnxruntime#5857).
        for name, array in self._controls.items():
            binding.bind_cpu_input(name, array[:bucket])
        for name, array in self._buffers.adjusted.items():
            binding.bind_cpu_input(name, array[: self._buffers.use.adjusted])
        binding.synchronize_inputs()
        self.session.run_with_iobinding(binding)

    def _binding(self, bucket: int) -> onnxruntime.IOBinding:
        """Made once for each bucket and direction; the controls are bound anew each step."""
        buffers = self._buffers
        key = (self._rows.side, self._rows.fixed_side, bucket, buffers.use.reports)
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = self.session.io_binding()
            self._rows.bind_step(binding, bucket)
            reports = buffers.reports if buffers.use.reports else {}
            for name, array in {**buffers.outputs, **reports}.items():
                part = array[:bucket]
                binding.bind_output(name, "cpu", 0, part.dtype.type, part.shape, part.ctypes.data)
        return binding


def _check_state_inputs(step: onnxruntime.InferenceSession, rows: DeviceRows) -> None:
    """State that onnxruntime placed on the host would be copied when bound, and then be stale."""
    state = {tensor.name for tensor in rows.state}
    infos = zip(step.get_inputs(), step.get_input_memory_infos(), strict=True)
    on_host = [p.name for p, info in infos if p.name in state and info.name.lower() == "cpu"]
    if rows.device != "cpu" and on_host:
        raise StateOnHost(
            f"the step graph reads {', '.join(on_host)} in host memory on {rows.device}; "
            "use --device cpu"
        )
