"""Figures of merit against their definitions, worked out the slow way."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from evaluation.metrics import Figure, Scored, auroc, ece, figures, recalls, reliability, roc


def scored(rows: list[tuple[bool, float]], threshold: float = 0.5) -> Scored:
    unsafe = np.array([label for label, _ in rows], dtype=bool)
    p = np.array([score for _, score in rows], dtype=float)
    return Scored(unsafe, p >= threshold, p, [frozenset(["x"] if label else []) for label, _ in rows])


ROWS = some.lists(
    some.tuples(some.booleans(), some.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 1.0])), min_size=1, max_size=30
)


@given(ROWS)
def test_auroc_is_the_chance_that_an_unsafe_row_scores_higher(rows: list[tuple[bool, float]]) -> None:
    pairs = [(a, b) for (one, a), (two, b) in product(rows, rows) if one and not two]
    found = auroc(scored(rows).unsafe, scored(rows).p)
    if not pairs:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]))


@given(ROWS)
def test_the_roc_curve_climbs_from_corner_to_corner_and_its_area_is_auroc(rows: list[tuple[bool, float]]) -> None:
    columns = scored(rows)
    false, hits = roc(columns.unsafe, columns.p)
    if not len(false):
        assert columns.unsafe.all() or not columns.unsafe.any()
        return
    assert (false[0], hits[0], false[-1], hits[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(hits) >= 0).all()
    assert np.trapezoid(hits, false) == pytest.approx(auroc(columns.unsafe, columns.p))


def test_counts_worked_by_hand() -> None:
    # 3 hits, 1 miss, 2 false alarms, 4 right
    rows = [(True, 0.9)] * 3 + [(True, 0.1)] + [(False, 0.8)] * 2 + [(False, 0.2)] * 4
    found = {name: figure.value for name, figure in figures(scored(rows)).items()}
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["recall"] == pytest.approx(3 / 4)
    assert found["fpr"] == pytest.approx(2 / 6)
    assert found["precision"] == pytest.approx(3 / 5)
    assert found["f1_unsafe"] == pytest.approx(6 / 9)
    assert found["f1_safe"] == pytest.approx(8 / 11)
    assert found["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2)


@pytest.mark.parametrize("label", [True, False])
def test_what_needs_both_labels_is_undefined_for_one(label: bool) -> None:
    found = figures(scored([(label, 0.9), (label, 0.1)]))
    assert found["auroc"] == Figure(None)
    assert (found["recall"].value is None) is (not label)
    assert (found["fpr"].value is None) is label


def test_no_rows_have_no_figures() -> None:
    empty = Scored(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0), [])
    assert all(figure.value is None for figure in figures(empty).values())


def test_an_interval_holds_its_figure_and_narrows_with_more_rows() -> None:
    few = figures(scored([(True, 0.9), (True, 0.1), (False, 0.6), (False, 0.2)] * 5))
    many = figures(scored([(True, 0.9), (True, 0.1), (False, 0.6), (False, 0.2)] * 200))
    for name in ("accuracy", "recall", "auroc"):
        for found in (few[name], many[name]):
            assert found.value is not None and found.low is not None and found.high is not None
            assert found.low <= found.value <= found.high
        assert many[name].high - many[name].low < few[name].high - few[name].low  # type: ignore[operator]


def test_the_same_rows_and_seed_give_the_same_intervals() -> None:
    rows = scored([(True, 0.9), (False, 0.4), (True, 0.3), (False, 0.1)] * 10)
    assert figures(rows, seed=3) == figures(rows, seed=3)


def test_a_calibrated_guard_has_no_calibration_error_and_a_sure_wrong_one_has_all() -> None:
    calibrated = scored([(True, 0.7)] * 7 + [(False, 0.7)] * 3)
    assert ece(calibrated.unsafe, calibrated.p) == pytest.approx(0)
    wrong = scored([(False, 1.0)] * 4)
    assert ece(wrong.unsafe, wrong.p) == pytest.approx(1)


def test_a_score_of_one_falls_in_the_last_bin() -> None:
    rows = scored([(True, 1.0), (False, 0.0)])
    said, was, number = reliability(rows.unsafe, rows.p)
    assert (number[0], number[-1], said[-1], was[-1]) == (1, 1, 1, 1)


def test_recall_by_category_counts_unsafe_rows_that_name_it() -> None:
    unsafe = np.array([True, True, True, False])
    flagged = np.array([True, False, True, True])
    names = [frozenset("a"), frozenset("a"), frozenset("b"), frozenset("b")]
    found = recalls(Scored(unsafe, flagged, np.full(4, 0.5), names))
    assert {name: figure.value for name, figure in found.items()} == {"a": 0.5, "b": 1.0}
