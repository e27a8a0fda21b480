from training.command import module_of


def test_a_model_with_a_hyphen_has_a_script():
    assert module_of("pos-online") == "training.pos_online"
    assert module_of("pos") == "training.pos"
