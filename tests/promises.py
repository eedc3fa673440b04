"""Write docs/reliability.md: each promise, its tests, and what their long forms counted.

usage: python tests/promises.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "reliability.md", ROOT / "results" / "reliability" / "figures.json"
LONG = "acceptance/test_reliability_long.py"
CHECKPOINTS, SAVES = "test_reliability_checkpoints.py", "test_reliability_saves.py"
KILLS, RESUME = "test_reliability_kills.py", "test_reliability_resume.py"

# A promise, what is counted in each `./test.sh`, and tests by file; acceptance: the long form.
PROMISES = (
    (
        "Resuming in mid-epoch is bitwise",
        "59 of 59 steps; 11 corruptions of step, moments, order and plan seen; every recipe at 2",
        "test_resume_steps.py::test_breaking_off_after_any_step_and_going_on_changes_no_bit",
        "test_resume_steps.py::test_a_corrupt_tensor_shows_at_the_end",
        "test_resume_steps.py::test_a_corrupt_step_shows_at_the_end",
        "test_resume_steps.py::test_a_corrupt_plan_shows_at_the_end",
        "test_resume_catalogue.py::test_a_recipe_broken_off_in_mid_epoch_goes_on_to_the_bit",
        "acceptance/test_resume_long.py",
    ),
    (
        "kill -9 costs at most the steps since the last save",
        "20 kills, 10 of them inside a save",
        f"{KILLS}::test_killed_at_ten_random_instants_a_run_ends_bitwise_as_if_never_killed",
        f"{KILLS}::test_killed_ten_times_inside_a_save_a_run_ends_bitwise_as_if_never_killed",
        LONG,
    ),
    (
        "A write is durable and whole, and costs at most 1 % of the time",
        "the order of the calls; 3 umasks; a clock",
        f"{SAVES}::test_a_checkpoint_is_synced_before_it_is_named_and_its_json_comes_last",
        "test_files.py::test_the_mode_of_a_file_follows_the_umask",
        f"{SAVES}::test_saving_is_paid_for_by_the_time_since_the_last_save",
        "acceptance/test_cifar.py",
    ),
    (
        "A damaged checkpoint is noticed, and the one before it used",
        "100 flipped bits, 10 truncations",
        f"{CHECKPOINTS}::test_flipped_bits_and_truncations_are_refused_and_the_one_before_is_used",
        f"{CHECKPOINTS}::test_a_damaged_checkpoint_and_the_one_used_are_both_named",
        LONG,
    ),
    (
        "A full disk harms nothing",
        "20 byte thresholds; a tmpfs that fills up at 2 places",
        f"{SAVES}::"
        "test_writes_that_fail_at_twenty_places_leave_the_old_checkpoint_and_nothing_else",
        "test_reliability_disk.py::"
        "test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_the_run_goes_on",
        LONG,
    ),
    (
        "The rate is exact after resuming, and a step past the end raises",
        "every step against the closed form",
        f"{RESUME}::test_lightning_1772_4655_15462_the_rate_of_one_cycle_is_exact_after_resuming",
        "test_schedule.py::test_a_step_past_the_end_raises_whatever_the_kind",
    ),
    (
        "The number of processes does not change the samples",
        "100 steps at 1, 2 and 4 processes, each image's bytes",
        "test_ranks.py::test_any_number_of_processes_sees_the_same_images_for_a_hundred_steps",
        f"{RESUME}::test_what_decides_the_bits_must_be_as_it_was_unless_forced",
    ),
    (
        "SIGINT and SIGTERM save, then the run leaves",
        "4 signals; one to one of two processes",
        f"{KILLS}::test_a_signal_saves_at_the_next_step_and_ends_with_its_code",
        "test_ranks.py::test_a_signal_to_one_of_two_saves_and_both_leave",
        LONG,
    ),
    (
        "A loss that is not finite never reaches the weights",
        "4 ways to spoil a step, 3 optimizers",
        "test_reliability_finite.py::test_a_step_that_is_not_finite_and_all_after_it_change_no_bit",
    ),
    (
        "Running out of memory is explained",
        "6 messages of allocators; the real one once in a run",
        "test_reliability_finite.py::"
        "test_a_run_that_runs_out_of_memory_ends_in_that_line_and_keeps_its_batch",
    ),
    (
        "A hostile checkpoint is inert",
        "10 pickle payloads in place of each file, 0 run; 11 malformed headers; 300 mutations",
        f"{CHECKPOINTS}::test_ten_pickle_payloads_in_place_of_any_file_are_inert_and_refused",
        "test_house.py::test_only_safe_formats_are_read",
        "test_fuzz.py::test_mutated_checkpoints_are_taken_over_or_passed_over",
        "acceptance/test_fuzz_long.py",
    ),
    (
        "A hostile CIFAR archive is inert",
        "14 gadgets, 0 run",
        "test_bad_cifar.py::test_gadgets_are_inert",
        "test_bad_cifar.py::test_fuzz",
        "acceptance/test_cifar_archive.py",
    ),
    (
        "An archive can't write outside",
        "`..`, absolute paths, links, devices, 10 GB members: 0 files written",
        "test_archives.py::test_paths_that_lead_outside",
        "test_archives.py::test_members_that_are_no_files_are_skipped",
        "test_archives.py::test_oversize_members",
        "acceptance/test_fuzz_long.py",
    ),
    (
        "A recipe file is read or refused in one line",
        "1,000 mutations",
        "test_fuzz.py::test_mutated_recipes_are_read_or_refused_in_one_line",
        "acceptance/test_fuzz_long.py",
    ),
    (
        "A download is what it should be",
        "14 ways to serve it and 7 wrong ones: never wrong bytes under its name",
        "test_fetch.py::test_the_right_bytes_arrive",
        "test_fetch.py::test_wrong_bytes_never_arrive",
    ),
    (
        "A bad image is named",
        "13 kinds of bad files",
        "test_bad_images.py::test_each_bad_image_is_refused_by_name_and_left_out_when_asked",
        "acceptance/test_image_fuzz.py",
    ),
    (
        "One writer a run folder",
        "20 starts at once: 1 runs, 19 name it",
        f"{KILLS}::test_of_twenty_starts_into_one_folder_one_runs_and_nineteen_name_it",
        "test_seeds.py::test_the_folder_of_several_seeds_is_held_before_anything_is_written",
    ),
    (
        "A report can't execute anything",
        "12 payloads as names of everything: no script, no handler",
        "test_page.py::test_hostile_names_stay_text",
    ),
    (
        "The demo page is bounded",
        "100 hostile requests answered 4xx, memory steady; timeout, load, loopback",
        "test_demo.py::test_a_hundred_hostile_requests_are_refused_and_memory_is_steady",
        "test_demo.py::test_what_takes_too_long_is_given_up",
        "test_demo.py::test_too_much_at_once_is_refused",
        "test_demo.py::test_other_machines_cannot_reach_it",
    ),
)
HEAD = """# Promises, and the tests that hold them

This page is made by `python tests/promises.py`. The tests run in `./test.sh`; long forms are under
`tests/acceptance`, and what they counted is in `results/reliability/figures.json`, which
`pytest tests/acceptance/test_reliability_long.py tests/acceptance/test_resume_long.py
tests/acceptance/test_fuzz_long.py tests/acceptance/test_image_fuzz.py
tests/acceptance/test_cifar_archive.py -k "not full_size" --figures
results/reliability/figures.json` brings up to date.
The one for full disks mounts a small tmpfs in a namespace of its own, and is skipped where that is
forbidden. "Bitwise" means on the same CPU, with the same versions, threads and processes. On a GPU
what is drawn and seen is the same, but some kernels add in an order that varies: no bits are
promised there.

| promise | counted in each test run | tests |
|---|---|---|
"""
MEASURED = """
## What the long forms counted

A test that fails loses its row.

| promise | figures, without a failure | seconds | on |
|---|---|---|---|
"""


def page(rows):
    """The text of the page, with the `rows` of figures.json."""
    lines = [
        f"| {promise} | {counted} | {', '.join(f'`{test}`' for test in tests)} |"
        for promise, counted, *tests in PROMISES
    ]
    measured = []
    for row in rows:
        figures = ", ".join(
            f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
            for name, value in row["figures"].items()
        )
        where = f"{row['machine']}, torch {row['torch']}, {row['date']}"
        measured.append(f"| {row['promise']} | {figures} | {row['seconds']:.0f} | {where} |")
    return "\n".join([HEAD + "\n".join(lines), MEASURED + "\n".join(measured), ""])


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(FIGURES.read_text())))
