"""The comparison with other schedulers: it finds no difference without a reason, and would find one."""

from __future__ import annotations

import pytest

from bench import agreement


def test_whoever_differs_has_a_reason_and_the_reference_does_not() -> None:
    found = agreement.compare_all(400, seed=7)
    assert found.unexplained == []
    for tally in found.tallies.values():
        assert tally.asked > 250
        assert tally.agreed > 0.7 * tally.asked


@pytest.mark.parametrize("shift", [-1, 1, 60, 3600])
def test_due_times_that_are_wrong_are_noticed(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    right = agreement.ask_ours
    monkeypatch.setattr(agreement, "ask_ours", lambda case: [due + shift for due in right(case)])
    found = agreement.compare_all(20, seed=7)
    assert len(found.unexplained) >= 20


def test_the_report_counts_cases_and_lists_what_has_no_reason() -> None:
    found = agreement.compare_all(10, seed=7)
    found.unexplained.append("somebody: something")
    text = agreement.write_agreement(found)
    assert text.startswith("10 cases (seed 7): ")
    assert "Without a reason: 1.\n- somebody: something\n" in text
