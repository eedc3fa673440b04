"""Mutated recipes and checkpoints: read, or refused in one line, and nothing else happens."""

import fuzzing


def test_mutated_recipes_are_read_or_refused_in_one_line(tmp_path):
    assert 0 < fuzzing.recipes(1000, tmp_path) < 1000


def test_mutated_checkpoints_are_taken_over_or_passed_over(tmp_path, tiny, make_recipe, machine):
    taken = fuzzing.checkpoints(300, tmp_path, tiny, make_recipe("model.width=1"), machine)
    assert 0 < taken < 300
