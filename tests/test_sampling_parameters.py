"""The table of sampling parameters, and that nothing beside it knows others."""

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from bundle.errors import ManifestInvalid
from bundle.sampling import GRAPH_PARAMETERS, NEUTRAL, SAMPLING_PARAMETERS
from bundle.store import read_bundle
from service.engine.requests import Sampling as EngineSampling
from tests.older_graphs import without_input
from tests.tiny import edit_manifest
from unroll import Client, RequestFailed, Sampling
from unroll.sampling import FLAGS
from unroll.v1 import unroll_pb2 as pb

KINDS = {"float32": FieldDescriptor.TYPE_FLOAT, "int64": FieldDescriptor.TYPE_UINT32}
EACH = pytest.mark.parametrize("parameter", SAMPLING_PARAMETERS, ids=lambda p: p.name)


def test_the_wire_has_the_numbers_of_the_table():
    fields = {f.name: f.type for f in pb.Sampling.DESCRIPTOR.fields if f.has_presence}
    assert fields.pop("seed") == FieldDescriptor.TYPE_UINT64
    assert fields == {p.name: KINDS[p.dtype] for p in SAMPLING_PARAMETERS}


def test_the_client_has_the_numbers_of_the_table():
    numbers = {name: flag.parse for name, flag in FLAGS.items() if flag.parse in (int, float)}
    assert numbers.pop("seed") is int
    assert numbers == {p.name: int if p.is_whole else float for p in SAMPLING_PARAMETERS}


@EACH
def test_every_declared_value_is_in_range(parameter):
    values = (parameter.default, parameter.neutral, parameter.probe, *parameter.parity)
    assert [parameter.problem(value) for value in values] == [None] * len(values)


@EACH
def test_both_ends_of_a_range_may_be_chosen(parameter):
    """An open end may not, nor may what lies beyond either, NaN, or infinity."""
    assert parameter.problem(parameter.most) is None
    assert (parameter.problem(parameter.least) is None) != parameter.is_open_below
    for value in (parameter.least - 1, parameter.most + 1, np.nan, np.inf, -np.inf):
        assert parameter.problem(value).startswith(f"{parameter.name} is {value:g}; choose one ")


@EACH
def test_a_float32_of_an_end_is_in_range(parameter):
    if not parameter.is_whole:
        ends = [parameter.most, parameter.smallest_positive or parameter.most]
        assert [parameter.problem(float(np.float32(end))) for end in ends] == [None, None]


@EACH
def test_what_parity_draws_has_an_effect_and_none(parameter):
    if parameter.graph_input is not None:
        assert parameter.neutral in parameter.parity
        assert set(parameter.parity) > {parameter.neutral}


def test_a_parameter_that_is_not_in_the_table_is_no_sampling_parameter():
    assert EngineSampling.of(3).values == NEUTRAL
    with pytest.raises(TypeError, match="'warmth' is no sampling parameter"):
        EngineSampling.of(3, warmth=1.0)


# -- bundles of an earlier release -------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in GRAPH_PARAMETERS if n != "temperature"])
def test_a_step_graph_without_a_parameter_is_served_without_it(
    models_copy, tiny_models, start_service, client, name
):
    """Its neutral value is taken, any other one refused; all else draws the same tokens."""
    without_input(models_copy / "letters" / "1", name)
    assert read_bundle(models_copy / "letters" / "1").manifest != (
        read_bundle(tiny_models / "letters" / "1").manifest
    )
    parameter = GRAPH_PARAMETERS[name]
    chosen = next(value for value in parameter.parity if value != parameter.neutral)

    def generate(caller, **sampling):
        pieces = caller.generate(
            "letters", prompt="abc", max_tokens=30, sampling=Sampling(seed=4, **sampling)
        )
        return [token.id for piece in pieces for token in piece.tokens]

    for precision in ("fp32", "int8"):
        older = start_service(models=models_copy, precision=f"letters={precision}")
        with Client(older.target, timeout=30) as caller:
            plain = generate(caller)
            assert generate(caller, **{parameter.name: parameter.neutral}) == plain
            if precision == "fp32":
                assert plain == generate(client)
            with pytest.raises(RequestFailed) as caught:
                generate(caller, **{parameter.name: chosen})
            assert caught.value.code == "INVALID_ARGUMENT"
            assert caught.value.message == (
                f"model 'letters' was exported without {parameter.name}; leave it, or export the "
                "bundle again"
            )


def test_a_step_graph_needs_what_is_no_sampling_parameter(models_copy):
    """And a parameter's input lies among its controls, not behind the state."""
    folder = models_copy / "letters" / "1"
    edit_manifest(
        folder, lambda c: [c["graphs"][g]["inputs"].pop(0) for g in ("step", "step_int8")]
    )
    with pytest.raises(ManifestInvalid, match=r"step's controls: .*'token'"):
        read_bundle(folder)
