"""The rules of @after as pure functions: which outcomes of the parents let the child run."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from scheduler.cron._core import ffi, lib

CONDITIONS = {"succeeded": lib.SCHEDULE_SUCCEEDED, "failed": lib.SCHEDULE_FAILED, "finished": lib.SCHEDULE_FINISHED}
OUTCOMES = {
    "awaited": lib.AFTER_AWAITED,
    "missing": lib.AFTER_MISSING,
    "succeeded": lib.AFTER_SUCCEEDED,
    "failed": lib.AFTER_FAILED,
    "skipped": lib.AFTER_SKIPPED,
}
VERDICTS = {lib.AFTER_WAIT: "wait", lib.AFTER_RUN: "run", lib.AFTER_SKIP: "skip"}
MEETS = {("succeeded", "succeeded"), ("failed", "failed"), ("finished", "succeeded"), ("finished", "failed")}

Parents = tuple[tuple[str, str], ...]


def decide(parents: Parents) -> tuple[str, int]:
    array = ffi.new("AfterParent[]", len(parents))
    for place, (condition, outcome) in zip(array, parents, strict=True):
        place.condition, place.outcome = CONDITIONS[condition], OUTCOMES[outcome]
    which = ffi.new("int *", -2)
    verdict = lib.clockwork_after_decide(array, len(parents), which)
    assert lib.clockwork_after_decide(array, len(parents), ffi.NULL) == verdict
    return VERDICTS[verdict], which[0]


@pytest.mark.parametrize(
    ("condition", "outcome", "verdict"),
    [
        ("succeeded", "succeeded", "run"),
        ("succeeded", "failed", "skip"),
        ("succeeded", "skipped", "skip"),
        ("failed", "succeeded", "skip"),
        ("failed", "failed", "run"),
        ("failed", "skipped", "skip"),
        ("finished", "succeeded", "run"),
        ("finished", "failed", "run"),
        ("finished", "skipped", "skip"),
        *((condition, "awaited", "wait") for condition in CONDITIONS),
        *((condition, "missing", "skip") for condition in CONDITIONS),
    ],
)
def test_one_parent_decides_alone(condition: str, outcome: str, verdict: str) -> None:
    assert decide(((condition, outcome),)) == (verdict, -1 if verdict == "run" else 0)
    assert lib.clockwork_after_meets(CONDITIONS[condition], OUTCOMES[outcome]) == (verdict == "run")


ALL_PAIRS = list(product(CONDITIONS, OUTCOMES))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_combination_follows_the_definition(count: int) -> None:
    for parents in product(ALL_PAIRS, repeat=count):
        contrary = [
            number for number, pair in enumerate(parents) if pair[1] not in ("awaited", "missing") and pair not in MEETS
        ]
        missing = [number for number, (_, outcome) in enumerate(parents) if outcome == "missing"]
        awaited = [number for number, (_, outcome) in enumerate(parents) if outcome == "awaited"]
        if contrary or missing:
            expected = ("skip", (contrary or missing)[0])
        elif awaited:
            expected = ("wait", awaited[0])
        else:
            expected = ("run", -1)
        assert decide(parents) == expected


def test_the_verdict_does_not_depend_on_the_order_of_the_parents() -> None:
    for parents in product(ALL_PAIRS, repeat=3):
        assert len({decide(order)[0] for order in permutations(parents)}) == 1


def test_a_verdict_is_never_taken_back_by_what_comes_later() -> None:
    """Whatever the awaited parents do, a decision that was made early stays right."""
    later = [outcome for outcome in OUTCOMES if outcome != "awaited"]
    for parents in product(ALL_PAIRS, repeat=3):
        verdict, _ = decide(parents)
        endings = [[(c, o)] if o != "awaited" else [(c, end) for end in later] for c, o in parents]
        verdicts = {decide(tuple(end))[0] for end in product(*endings)}
        assert "wait" not in verdicts
        if verdict != "wait":
            assert verdicts == {verdict}
        else:
            assert verdicts == {"run", "skip"}


def test_as_many_parents_as_a_schedule_can_have() -> None:
    parents = tuple(("finished", "succeeded") for _ in range(32))
    assert decide(parents) == ("run", -1)
    assert decide((*parents[:-1], ("finished", "awaited"))) == ("wait", 31)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("skipped", "skipped"),
        ("queued", "awaited"),
        ("starting", "awaited"),
        ("running", "awaited"),
        ("", "awaited"),
    ],
)
def test_the_status_of_a_record_is_an_outcome_once_it_is_final(status: str, outcome: str) -> None:
    assert lib.clockwork_after_outcome(status.encode()) == OUTCOMES[outcome]


@pytest.mark.parametrize("outcome", ["missing", "succeeded", "failed", "skipped"])
def test_the_reason_names_what_the_parent_did(outcome: str) -> None:
    assert ffi.string(lib.clockwork_after_reason(OUTCOMES[outcome])) == f"parent_{outcome}".encode()
