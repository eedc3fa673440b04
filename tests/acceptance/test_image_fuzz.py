"""The long fuzz of picture files: `pytest tests/acceptance/test_image_fuzz.py -s`, some minutes."""

import time
import warnings

import picture_files
import pytest

MUTATIONS = 100_000
KINDS = picture_files.kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_pixels_or_a_reason(kind, record_property):
    count = -(-MUTATIONS // len(KINDS))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as while a data set is read
        taken = picture_files.fuzz(KINDS[kind], count, seed=1)
    print(f"{kind}: {count - taken:,} of {count:,} refused, {time.perf_counter() - start:.0f} s")
    record_property("promise", f"fuzz of pictures: {kind}")
    record_property("mutated inputs", count)
    record_property("still sound", taken)
    assert 0 < taken < count
