"""Models as OpenAI's clients list them."""

from tests.tiny import NAMES

TASKS = {
    "letters": "generate",
    "speller": "seq2seq",
    "foods": "vector_to_sequence",
    "mood": "classify",
}


def test_every_model_is_listed_once_with_its_task(api):
    content = api.get("/v1/models").content
    assert content["object"] == "list"
    models = {model["id"]: model for model in content["data"]}
    assert len(models) == len(content["data"])
    assert set(models) == set(NAMES)
    assert {name: models[name]["task"] for name in TASKS} == TASKS
    assert {model["object"] for model in models.values()} == {"model"}
    assert all(isinstance(model["created"], int) for model in models.values())
    assert len(models["foods"]["vector_fields"]) == 3


def test_one_model_is_as_it_is_listed(api):
    listed = api.get("/v1/models").content["data"]
    assert api.get("/v1/models/letters").content == next(m for m in listed if m["id"] == "letters")


def test_names_may_be_escaped(api):
    assert api.get("/v1/models/lett%65rs").content["id"] == "letters"


def test_a_model_that_is_not_served_is_not_found(api):
    for name in ("nobody", "", "%00", "a/b", "%C3%A9", "letters/"):
        answer = api.get(f"/v1/models/{name}")
        assert answer.status == 404, name
        error = answer.error
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert "served are: " in error["message"]
