"""The small data set inside scikit-learn: handwritten digits, for a run without any download."""

import numpy as np
from PIL import Image

from onecycle.datasets.dataset import Dataset, Split, digest

SIZE = 32  # pixels, to which the 8x8 originals are enlarged
TEST_FRACTION = 0.2
SPLIT_SEED = 0


def load() -> Dataset:
    """The 1,797 digits of scikit-learn's `load_digits` as 32x32 RGB: 1,437 train, 360 test.

    Grey values 0-16 become 0-255 (x 255/16, rounded), are enlarged from 8x8 by Pillow's bilinear
    filter and repeated to three channels. The split is scikit-learn's stratified
    `train_test_split` with `random_state=0`, each part then put back in the original order.
    """
    # scikit-learn is slow to import, and only this data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    original = load_digits()
    grey = np.rint(original.images * (255 / 16)).astype(np.uint8)
    size, bilinear = (SIZE, SIZE), Image.Resampling.BILINEAR
    large = np.stack([np.asarray(Image.fromarray(image).resize(size, bilinear)) for image in grey])
    pixels = np.repeat(large[..., None], 3, axis=3)
    labels = original.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_FRACTION,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    names = tuple(f"digits/{i:04d}" for i in range(len(labels)))
    whole = Split(pixels, np.arange(len(labels)), labels, names)
    train, test = (whole.subset(np.sort(part)) for part in parts)
    classes = tuple("0123456789")
    return Dataset(
        name="digits",
        classes=classes,
        train=train,
        test=test,
        digest=digest(classes, train, test),
        source="digits",
    )
