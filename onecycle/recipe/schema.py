"""The Recipe: every number a person may tune, in one validated tree.

A field's default is its off value, and fields at their off value are left out of the digest, so
that a new field changes no digest of a recipe that doesn't use it.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from onecycle.errors import RecipeError, brief, did_you_mean
from onecycle.files import sha256_bytes
from onecycle.recipe import schedules
from onecycle.recipe.schedules import ScheduleSpec

KINDS = {"schedule": schedules.KINDS}  # tables that come in several kinds

# The networks, and what each has a way of its own for, so that these fields say nothing to it.
SETTLED = {
    "davidnet": (),
    "dilated": ("conv_bias", "fc_bias", "head", "int8"),
    "resnet18": ("conv_bias", "fc_bias", "dropout", "head"),
    "speednet": ("conv_bias", "fc_bias", "dropout", "head"),
}


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(_Spec):
    """Which network, and its free numbers."""

    name: str
    width: int = Field(ge=1, le=2**16, description="channels of the first convolution")
    conv_bias: Literal["none", "plain", "all"] = Field(
        "none", description="biases on no convolution, on those outside the residuals, on all"
    )
    fc_bias: bool = Field(False, description="bias of the fully connected layer")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="probability, after every ReLU (or its batch norm)"
    )
    head: Literal["max", "gap"] = Field(
        "max", description="global max pool, or MaxPool4 and global average pool"
    )
    statistics: Literal["data", "imagenet"] = Field(
        "data", description="the mean and deviation that pixels are standardized with"
    )
    int8: bool = Field(
        False, description="where a CPU has AMX, convolutions learn from numbers of 8 bits"
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SETTLED:
            raise ValueError(f"choose one of {', '.join(SETTLED)}{did_you_mean(name, SETTLED)}")
        return name

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        for key in SETTLED[self.name]:
            if key in self.model_dump(exclude_defaults=True):
                raise ValueError(f"{key} says nothing to {self.name}: leave it out")
        return self


class AugmentSpec(_Spec):
    """What is done to each training image, anew in every epoch."""

    for_size: int = Field(
        0, ge=0, description="pixels of a side that pad and cutout are for; 0: whatever size"
    )
    pad: int = Field(0, ge=0, description="pixels added on each side before the random crop")
    pad_mode: Literal["zero", "reflect"] = "zero"
    flip: Literal["none", "random", "alternating"] = Field(
        "none", description="horizontal; alternating: a random half first, then all on odd epochs"
    )
    cutout: int = Field(0, ge=0, description="side in pixels of a square that is filled")
    cutout_probability: float = Field(1.0, ge=0, le=1)
    cutout_side: Literal["fixed", "random"] = Field(
        "fixed", description="random: from 1 to cutout pixels, each side as likely"
    )
    cutout_place: Literal["inside", "clipped"] = Field(
        "inside", description="clipped: it may cross the border, each pixel as likely covered"
    )
    cutout_fill: Literal["mean", "zero"] = "mean"
    erasing: float = Field(
        0.0, ge=0, le=1, description="probability that a rectangle of 2 to 33 % is filled, too"
    )
    policy: Literal["none", "trivial"] = Field(
        "none", description="TrivialAugment: one operation an image, of any strength"
    )
    colour: float = Field(
        0.0, ge=0, le=1, description="jitter of brightness, contrast, saturation and hue"
    )
    brightness: float = Field(
        0.0, ge=0, le=1, description="up to so much of the whole scale is added or taken away"
    )
    contrast: float = Field(
        0.0, ge=0, le=1, description="distances from mid-grey grow or shrink by up to so much"
    )
    mixup: float = Field(0.0, ge=0, description="alpha: images blended with others, labels too")
    cutmix: float = Field(0.0, ge=0, description="alpha: a square of another image put in")


class SgdSpec(_Spec):
    """Stochastic gradient descent with momentum."""

    momentum: float = Field(ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamSpec(_Spec):
    """Adam (decay added to the gradient) or AdamW (decay apart from it)."""

    momentum: float = Field(ge=0, lt=1, description="beta1")
    beta2: float = Field(ge=0, lt=1)
    eps: float = Field(gt=0)


class MuonSpec(_Spec):
    """Muon, for convolutions: an orthogonal step, after which a filter bank keeps its norm."""

    momentum: float = Field(ge=0, lt=1, description="Nesterov's")
    iterations: int = Field(ge=1, le=7, description="of Newton-Schulz")


class OptimizersSpec(_Spec):
    """The optimizers that the groups refer to."""

    sgd: SgdSpec | None = None
    adam: AdamSpec | None = None
    adamw: AdamSpec | None = None
    muon: MuonSpec | None = None


class GroupSpec(_Spec):
    """Parameters whose names match a pattern, and how they learn. The first match counts."""

    match: str = Field(min_length=1, description="pattern over parameter names, * for any text")
    optimizer: Literal["sgd", "adam", "adamw", "muon"]
    lr_scale: float = Field(1.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.optimizer == "muon" and self.weight_decay:
            raise ValueError(
                "weight_decay says nothing to muon, which keeps the norm: leave it out"
            )
        return self


class Recipe(_Spec):
    """All that decides what a run computes, apart from its data, seed and machine."""

    # It begins the names of run folders.
    name: str = Field(pattern=r"^\w[\w.+ -]{0,99}$")
    about: str
    epochs: float = Field(gt=0, le=1e6)
    for_images: int = Field(
        0,
        ge=0,
        le=10**9,
        description="training images that epochs are for; 0: however many there are",
    )
    batch_size: int = Field(ge=1, le=10**9)
    balance: Literal["none", "weights", "sampling"] = Field(
        "none", description="classes count alike: by weights in the loss, or drawn equally often"
    )
    ghost_batch: int = Field(
        0, ge=0, description="images that share batch-norm statistics; 0: the whole batch"
    )
    drop_last: bool = Field(False, description="leave out an epoch's last, short batch")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    resolution: tuple[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0, le=1)]], ...
    ] = Field(
        (),
        description="(epoch, share): from then on training images have that share of their size",
    )
    model: ModelSpec
    augment: AugmentSpec
    schedule: ScheduleSpec
    optimizers: OptimizersSpec
    groups: tuple[GroupSpec, ...] = Field(min_length=1)
    ingredients: dict[Annotated[str, Field(pattern="^[a-z0-9-]+$")], tuple[str, ...]] = Field(
        {}, description="what an ablation leaves out, and the key=value settings that do so"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = schedules.problem(self.schedule, self.epochs) or _resolution_problem(
            self.resolution, self.epochs
        )
        if wrong:
            raise ValueError(wrong)
        for group in self.groups:
            if getattr(self.optimizers, group.optimizer) is None:
                raise ValueError(
                    f"group '{group.match}' needs the table [optimizers.{group.optimizer}]"
                )
        return self

    def sized(self, images: int, size: int | None = None) -> "Recipe":
        """The recipe as it is for so many training images, of `size` pixels.

        With `for_images`, the run is sqrt(for_images / images) times as long, in whole epochs: of
        a hundred times the images, each is seen a tenth as often. With `augment.for_size`, pad and
        cutout grow with the images, to whole pixels.
        """
        changes: dict[str, Any] = {}
        if self.for_images:
            epochs = max(1, round(self.epochs * (self.for_images / images) ** 0.5))
            plain = self.schedule.model_dump(mode="json")
            factor = epochs / self.epochs
            schedule = type(self.schedule).model_validate(schedules.stretched(plain, factor))
            resolution = tuple((at * factor, share) for at, share in self.resolution)
            changes = {"for_images": 0, "epochs": float(epochs), "schedule": schedule}
            changes["resolution"] = resolution
        if size is not None and self.augment.for_size:
            factor = size / self.augment.for_size
            scaled = {key: round(factor * getattr(self.augment, key)) for key in ("pad", "cutout")}
            augment = self.augment.model_copy(update={"for_size": 0, **scaled})
            changes["augment"] = augment
        return self.model_copy(update=changes)

    def digest(self) -> str:
        """Hex digest of all that decides the computation (name and description don't)."""
        content = self.model_dump(
            mode="json", exclude_defaults=True, exclude={"name", "about", "ingredients"}
        )
        return sha256_bytes(json.dumps(content, sort_keys=True).encode())[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, off fields left out; `parse` reads them back."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _resolution_problem(knots: tuple[tuple[float, float], ...], epochs: float) -> str | None:
    """Why the sizes of training images can't be these, or None."""
    times = [epoch for epoch, _ in knots]
    if sorted(set(times)) != times:
        return f"resolution: the epochs must rise, not be {', '.join(f'{t:g}' for t in times)}"
    if times and times[-1] >= epochs:
        return f"resolution: epoch {times[-1]:g} lies past the last of {epochs:g} epochs"
    return None


def parse(content: dict[str, Any], where: str) -> Recipe:
    """The recipe in `content`; RecipeError in one line, naming `where` and the key, if it's not."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # Inside a table of several kinds, the second part of the location names the kind.
        kinds = KINDS.get(str(first["loc"][0]), {}) if len(first["loc"]) > 1 else {}
        location = [str(part) for i, part in enumerate(first["loc"]) if i != 1 or not kinds]
        message = brief(first["msg"].removeprefix("Value error, "), 300)
        given = (
            "" if isinstance(first["input"], dict) else f" (given: {brief(repr(first['input']))})"
        )
        if first["type"] == "extra_forbidden":
            table = kinds[str(first["loc"][1])] if kinds else _table(first["loc"])
            message = f"unknown key{did_you_mean(location[-1], table.model_fields)}"
        elif first["type"] == "union_tag_invalid":
            tag, known = first["ctx"]["tag"], KINDS[location[0]]
            location.append("kind")
            message = f"'{brief(str(tag))}' is none of {', '.join(known)}{did_you_mean(tag, known)}"
        key = ".".join(brief(part) for part in location)
        raise RecipeError(f"{where}: {key + ': ' if key else ''}{message}{given}") from None


def _table(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The table that holds `location`."""
    here: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, str):
            here = here.model_fields[part].annotation
            here = next((t for t in getattr(here, "__args__", ()) if t is not type(None)), here)
    table: type[BaseModel] = here
    return table
