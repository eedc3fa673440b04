"""Facts about a data set as a Python function, and the pictures that show it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from onecycle import files, progress
from onecycle.api.recipes import choose_recipe
from onecycle.api.setup import check_seed
from onecycle.datasets import augment, duplicates, facts
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.duplicates import Duplicates, Pair
from onecycle.datasets.feed import Feed
from onecycle.datasets.load import load as load_data
from onecycle.recipe.schema import Recipe
from onecycle.reporting import pictures, plots
from onecycle.training.loop import check_sizes

EPOCHS = 8  # that the picture of the augmentation shows, and as many images
MOST_PAIRS = 24  # near duplicates in their picture
SAMPLES, AUGMENTED = "samples.png", "augmented.png"
NEAR_DUPLICATES = "near_duplicates.png"


@dataclass(frozen=True)
class DataFacts:
    """A data set, its duplicates, and pictures of both; `to_dict` gives all there is in numbers."""

    dataset: Dataset
    duplicates: Duplicates
    recipe: Recipe
    seed: int
    augment_backend: str = "own"

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files that can't be used, as `name (reason)`."""
        return self.dataset.skipped

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values; mean and standard deviation on both scales."""
        return {
            **facts.describe(self.dataset, self.duplicates),
            "skipped": list(self.skipped),
            "notes": list(self.dataset.notes),
        }

    def samples(self) -> Figure:
        """Training images of each class, drawn with the seed; of 100 classes at most."""
        data, draw = self.dataset, np.random.default_rng(self.seed)
        classes = np.arange(len(data.classes))
        title = f"{data.name}: training images"
        if len(classes) > pictures.MOST_CLASSES:
            title += f" of {pictures.MOST_CLASSES} of the {len(classes):,} classes"
            classes = np.sort(draw.choice(classes, pictures.MOST_CLASSES, replace=False))
        most = pictures.layout(len(classes))[1]
        groups = []
        for label in classes:
            members = draw.permutation(np.flatnonzero(data.train.labels == label))[:most]
            groups.append((data.classes[label], data.train.pixels[data.train.rows[members]]))
        return pictures.samples(title, groups)

    def augmented(self) -> Figure:
        """Eight training images, and what the network is given of them in the first epochs.

        Those are up to eight. That is what a run of this recipe with this seed draws, if it holds
        no images out; the first time, where it draws an image several times in an epoch.
        """
        data = self.dataset
        count = len(data.train)
        spec = self.recipe.sized(count, data.image_size).augment
        picked = np.random.default_rng(self.seed).permutation(count)[:EPOCHS]
        alike = data.train.labels if self.recipe.balance == "sampling" else None
        feed = Feed(spec, data, "cpu", self.seed, self.augment_backend)
        draws = []
        for epoch in range(min(EPOCHS, math.ceil(self.recipe.sized(count).epochs))):
            plan = augment.draw(spec, count, data.image_size, self.seed, epoch, alike)
            found = plan.order == torch.from_numpy(picked)[:, None]
            (given,) = feed.batches(epoch, plan, [found.int().argmax(1)])
            images = given(slice(None))
            images[~found.any(1)] = 255
            draws.append(images.round().byte().numpy())
        smaller = ", before it is made smaller" if self.recipe.resolution else ""
        if alike is not None:
            smaller += " (empty where an epoch leaves an image out)"
        title = (
            f"What the network is given in training{smaller}: recipe {self.recipe.name}, "
            f"seed {self.seed}"
        )
        names = [data.classes[label] for label in data.train.labels[picked]]
        originals = data.train.pixels[data.train.rows[picked]]
        return pictures.augmented(title, names, originals, np.stack(draws, axis=1))

    def near_duplicates(self) -> Figure | None:
        """Near duplicates with their names, from the most alike to the least; None without any.

        A training and a test image side by side, or two of one part if there are no such pairs;
        of each family one pair, and at most 24 at equal steps of the ranking. Pairs of two classes
        are written in another colour.
        """
        pairs, across = self._told_apart()
        if not pairs:
            return None
        steps = np.linspace(0, len(pairs) - 1, min(MOST_PAIRS, len(pairs))).astype(int)
        found = []
        for pair in (pairs[i] for i in steps):
            places = (pair.first, pair.second)
            one, two = (facts.image(self.dataset, place) for place in places)
            differ = one["class"] != two["class"]
            classes = f"{one['class']} / {two['class']}" if differ else one["class"]
            about = f"{pair.likeness:.2f}{' mirrored' if pair.mirrored else ''}"
            images = duplicates.images(self.dataset, np.array(places))
            found.append((images, (one["name"], two["name"], classes, about), differ))
        kind = "left in the training part, right in the test part" if across else "in one part"
        title = f"Near duplicates in {self.dataset.name}, {kind}"
        return pictures.pairs(title, found)

    def _told_apart(self) -> tuple[list[Pair], bool]:
        """The most alike pair of each family, and whether they are of a training and a test image.

        That they are if there is any such pair.
        """
        near, first_test = self.duplicates.near, len(self.dataset.train)
        across = [pair for pair in near if pair.first < first_test <= pair.second]
        families = duplicates.families(self.duplicates)
        family_of = {place: i for i, family in enumerate(families) for place in family}
        best: dict[int, Pair] = {}
        for pair in across or near:
            best.setdefault(family_of[pair.first], pair)
        return list(best.values()), bool(across)

    def save_pictures(self, out: str | Path) -> list[Path]:
        """Write the pictures into the folder `out`, over older ones; their paths. DiskError."""
        figures = {
            SAMPLES: self.samples(),
            AUGMENTED: self.augmented(),
            NEAR_DUPLICATES: self.near_duplicates(),
        }
        folder = files.make_folder(Path(out))
        paths = []
        for name, figure in figures.items():
            if figure is None:  # of another data set, or of this one before its repair
                with files.disk_errors(folder / name, "remove"):
                    (folder / name).unlink(missing_ok=True)
            else:
                plots.save(figure, folder / name)
                paths.append(folder / name)
        return paths


def data(
    spec: str | Path,
    *,
    recipe: str | Recipe | None = None,
    seed: int = 0,
    image_size: int | None = None,
    quiet: bool = False,
) -> DataFacts:
    """Look at the data set `spec`: what is in it, and what is in it more than once.

    `spec` is what `train` takes as `data`. Files that can't be used are left out and told.
    `recipe`, by default the one that the catalogue names for the data, is the one whose
    augmentation is shown; `seed` chooses the images that are shown, and augments them;
    `image_size` is as in `train`. Progress goes to stderr unless `quiet`. Raises RecipeError and
    DataError, and DiskError for a cache that can't be written.
    """
    show = progress.Show(quiet)
    check_seed(seed)
    chosen = choose_recipe(recipe, spec, None, ())
    dataset = load_data(spec, show.decoded, show.downloaded, skip_bad=True, image_size=image_size)
    check_sizes(chosen, dataset)
    return DataFacts(dataset, duplicates.find(dataset, show.compared), chosen, seed)
