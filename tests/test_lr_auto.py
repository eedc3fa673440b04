"""bench/lr_auto.py: a part of the data, and what is said where a test found no rate."""

import numpy as np
from bench_scripts import script

bench = script("lr_auto")


def test_a_part_of_the_data_keeps_the_validation_part(make_data):
    data = make_data(train=600)
    whole, half = bench.part_of(data, 1), bench.part_of(data, 0.5)
    np.testing.assert_array_equal(half.val.rows, whole.val.rows)
    assert abs(len(half.train) - len(whole.train) / 2) <= len(data.classes)
    assert not set(half.train.rows) & set(half.val.rows)


def test_a_peak_that_is_far_off_with_one_seed_is_tried_with_no_other(tmp_path):
    peaks = bench.OPTIMIZERS["sgd"][1]
    for peak, accuracy in zip(peaks, (0.4, 0.5, 0.7, 0.551, 0.549, 0.1), strict=True):
        (tmp_path / bench.Trial("sgd", 0, peak).file).write_text(f'{{"accuracy": {accuracy}}}')
    second = [bench.Trial("sgd", 1, peak) for peak in (*peaks, None)]
    assert [bench.hopeless(trial, tmp_path) for trial in second] == [1, 1, 0, 0, 1, 1, 0]
    assert not bench.hopeless(bench.Trial("sgd", 0, peaks[0]), tmp_path)


def test_a_test_that_found_nothing_is_a_dash():
    peaks = bench.OPTIMIZERS["sgd"][1]
    picked = [{"optimizer": "sgd", "seed": 0, "peak": p, "accuracy": 0.5 + p / 10} for p in peaks]
    refused = {"lr_max": None, "suggestions": [{"rule": "steered", "lr": None}]}
    found = {"optimizer": "sgd", "seed": 0, "peak": None, "accuracy": 0.0, "found": refused}
    assert (
        bench.difference([*picked, found], "sgd") == "| sgd | 1 | 60.00 | - | 0.00 | -60.00 ± nan |"
    )
