"""Changing a recipe by settings, a length or a rate: what was meant is changed, and no more."""

import tomllib

import pytest
import tomli_w
from recipe_files import BASE, RATES, assert_refused, with_value

from onecycle.recipe import book
from onecycle.recipe.schema import Recipe, parse


@pytest.mark.parametrize("epochs", [0.5, 3, 7.25, 48])
@pytest.mark.parametrize("peak", [2.0, 7.0, 8.0])
def test_epochs_keep_the_peak_at_the_same_fraction(epochs, peak):
    recipe = parse(with_value(BASE, "schedule.peak_epoch", peak), "")
    changed = book.change(recipe, [], epochs=epochs)
    assert changed.epochs == epochs
    assert changed.schedule.peak_epoch == pytest.approx(epochs * peak / 8, rel=1e-12)


@pytest.mark.parametrize("length", [7, 11, 24])
def test_a_peak_at_the_end_stays_there_for_any_length(length):
    content = with_value(with_value(BASE, "epochs", length), "schedule.peak_epoch", length)
    recipe = parse(content, "")
    for quarters in range(1, 120):
        changed = book.change(recipe, [], epochs=quarters / 4)
        assert changed.schedule.peak_epoch == pytest.approx(changed.epochs, rel=1e-12)


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("model.width=32", lambda recipe: recipe.model.width == 32),
        ("model.head=gap", lambda recipe: recipe.model.head == "gap"),
        ("model.head='gap'", lambda recipe: recipe.model.head == "gap"),
        ("drop_last=true", lambda recipe: recipe.drop_last is True),
        ("groups.0.lr_scale = 1e-2", lambda recipe: recipe.groups[0].lr_scale == 0.01),
        ("schedule.momentum_at_peak=0.8", lambda recipe: recipe.schedule.momentum_at_peak == 0.8),
        ("optimizers={sgd={momentum=0.5}}", lambda recipe: recipe.optimizers.sgd.momentum == 0.5),
    ],
)
def test_assignment_arrives_and_is_named_custom(assignment, read):
    base = parse(BASE, "")
    changed = book.change(base, [assignment])
    assert read(changed)
    assert not read(base)
    assert changed.name == "base+custom"


def test_what_computes_the_same_keeps_its_name():
    base = parse(BASE, "")
    same = book.change(base, ["model.width=8", "augment.cutout_probability=1.0"], epochs=8)
    assert same.name == "base"
    assert same == base


@pytest.mark.parametrize(
    ("assignments", "rates"),
    [
        (["schedule.kind=constant"], {"lr_peak": 1e-2}),
        (["schedule.kind=cosine"], {"lr_peak": 1e-2, "lr_final": 1e-4}),
        (["schedule.kind=cosine", "schedule.lr_peak=0.3"], {"lr_peak": 0.3, "lr_final": 1e-4}),
        (["schedule.kind=triangular2", "schedule.cycle_epochs=4"], {**RATES, "cycle_epochs": 4}),
        (["schedule.kind=piecewise", "schedule.knots=[[0, 1]]"], {"knots": [[0, 1]]}),
    ],
)
def test_another_kind_of_schedule_keeps_what_it_shares(assignments, rates):
    changed = book.change(parse(BASE, ""), assignments)
    assert changed.to_dict()["schedule"] == {"kind": assignments[0].partition("=")[2], **rates}


def test_another_kind_asks_for_what_it_lacks():
    base = parse(BASE, "")
    for kind, key in (("triangular", "cycle_epochs"), ("piecewise", "knots")):
        assert_refused(
            lambda kind=kind: book.change(base, [f"schedule.kind={kind}"]),
            f"schedule.{key}",
            "required",
        )


@pytest.mark.parametrize("lr", [0.003, 0.0061, 0.13, 1 / 3])
def test_a_rate_is_exactly_the_peak(lr):
    assert book.change(parse(BASE, ""), [], lr=lr).schedule.lr_peak == lr


def test_a_rate_is_the_peak_and_scales_the_others_and_assignments_come_after():
    changed = book.change(parse(BASE, ""), ["schedule.lr_final=3e-4"], lr=2e-2).schedule
    assert (changed.lr_start, changed.lr_peak, changed.lr_final) == (2e-3, 2e-2, 3e-4)


def test_an_ingredient_can_be_changed():
    changed = book.change(book.find("davidnet"), ['ingredients.crop=["augment.pad=2"]'])
    assert changed.ingredients["crop"] == ("augment.pad=2",)


def test_changing_twice_is_named_custom_once():
    once = book.change(parse(BASE, ""), ["model.width=16"])
    assert book.change(once, ["model.width=32"]).name == "base+custom"


def test_a_recipe_cannot_be_changed_in_place():
    recipe: Recipe = parse(tomllib.loads(tomli_w.dumps(BASE)), "")
    with pytest.raises(ValueError, match="frozen"):
        recipe.model.width = 3
