"""Mutated recipes and checkpoints: read, or refused in one line, and nothing else happens."""

import pickle

import fuzzing
import watching


def test_mutated_recipes_are_read_or_refused_in_one_line(tmp_path):
    assert 0 < fuzzing.recipes(1000, tmp_path) < 1000


def test_mutated_checkpoints_are_taken_over_or_passed_over(tmp_path, tiny, make_recipe, machine):
    taken = fuzzing.checkpoints(300, tmp_path, tiny, make_recipe("model.width=1"), machine)
    assert 0 < taken < 300


def test_what_a_reader_must_not_do_would_be_noticed(tmp_path):
    (tmp_path / "there").write_text("x")
    with watching.acts() as seen:
        (tmp_path / "there").read_text()
        list(tmp_path.iterdir())
    assert not seen
    with watching.acts() as seen:
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").rename(tmp_path / "other")
        exec("1 + 1")
        pickle.loads(b"cos\ngetpid\n.")
    assert {event for event, _ in seen} >= {"open", "os.rename", "exec", "pickle.find_class"}
