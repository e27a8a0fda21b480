import onnx
import pytest
from onnx import TensorProto, checker, helper

from bundle.store import read_bundle
from service.runtime.graph_parts import NotAGraph, part_for


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"])


def branch(name, read):
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"])
    return helper.make_graph([helper.make_node("Neg", [read], [name])], name, [], [output])


@pytest.fixture
def model():
    """kept: an If whose branches read what stands outside of them; left: what nothing needs."""
    nodes = [
        helper.make_node("Abs", ["x"], ["inner"]),
        helper.make_node("Add", ["y", "constant"], ["unneeded"]),
        helper.make_node(
            "If",
            ["which"],
            ["kept"],
            then_branch=branch("a", "inner"),
            else_branch=branch("b", "other"),
        ),
        helper.make_node("Neg", ["unneeded"], ["left"]),
    ]
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    constants = [
        helper.make_tensor("constant", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("other", TensorProto.FLOAT, [1], [2.0]),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x"), value("y"), which], [value("kept"), value("left")], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def names(things):
    return [thing.name for thing in things]


def test_a_part_holds_what_its_outputs_need_and_nothing_else(model):
    part = onnx.load_model_from_string(part_for(model.SerializeToString(), {"kept"}))
    checker.check_model(part)
    assert [node.op_type for node in part.graph.node] == ["Abs", "If"]
    assert names(part.graph.input) == ["x", "which"]
    assert names(part.graph.output) == ["kept"]
    assert names(part.graph.initializer) == ["other"]
    assert part.opset_import == model.opset_import


def test_a_part_reads_what_it_is_given_and_does_not_compute_it(model):
    part = part_for(model.SerializeToString(), {"left"}, given={"kept"})
    assert names(onnx.load_model_from_string(part).graph.input) == ["y"]
    following = onnx.ModelProto.FromString(model.SerializeToString())
    following.graph.node.append(helper.make_node("Sub", ["kept", "y"], ["after"]))
    following.graph.output.append(value("after"))
    part = onnx.load_model_from_string(
        part_for(following.SerializeToString(), {"after"}, given={"kept"})
    )
    checker.check_model(part)
    assert [node.op_type for node in part.graph.node] == ["Sub"]
    assert sorted(names(part.graph.input)) == ["kept", "y"]
    assert names(part.graph.output) == ["after"]


def test_the_whole_is_a_part_of_itself(model):
    whole = part_for(model.SerializeToString(), {"kept", "left"})
    assert onnx.load_model_from_string(whole) == model


def test_a_step_is_cut_as_onnx_reads_it(tiny_models):
    bundle = read_bundle(tiny_models / "letters" / "1")
    step = bundle.graph_of("step_int8")
    wanted = [f"next_{tensor.name}" for tensor in bundle.manifest.state]
    part = onnx.load_model_from_string(part_for(step, set(wanted)))
    assert sorted(names(part.graph.output)) == sorted(wanted)
    made = {name for node in part.graph.node for name in node.output}
    given = {*names(part.graph.input), *names(part.graph.initializer)}
    assert {name for node in part.graph.node for name in node.input if name} <= made | given
    assert len(part.graph.node) < len(onnx.load_model_from_string(step).graph.node)


@pytest.mark.parametrize(
    "content", [b"\x3a\x05ab", b"\xff", b"\x3b", b"\x3a"], ids=["short", "number", "kind", "size"]
)
def test_bytes_that_are_no_message_are_refused(content):
    with pytest.raises(NotAGraph):
        part_for(content, {"kept"})
