/*
 * The rules of @after: what becomes of a due time, given what became of it in
 * the jobs that are waited for.
 *
 * A parent's outcome counts once it is final: after the last attempt.  Nothing
 * here allocates, reads a clock, or keeps state.
 */
#ifndef CLOCKWORK_CORE_AFTER_H
#define CLOCKWORK_CORE_AFTER_H

#include "schedule.h"

/* What became of a due time in a parent. */
typedef enum AfterOutcome
{
	AFTER_AWAITED,				/* nothing yet, but something will */
	AFTER_MISSING,				/* nothing, and nothing will: it has no such due time */
	AFTER_SUCCEEDED,
	AFTER_FAILED,
	AFTER_SKIPPED				/* a record, but no run */
} AfterOutcome;

typedef struct AfterParent
{
	ScheduleCondition condition;
	AfterOutcome outcome;
} AfterParent;

typedef enum AfterVerdict
{
	AFTER_WAIT,
	AFTER_RUN,
	AFTER_SKIP
} AfterVerdict;

/*
 * What becomes of the child, `count` >= 1.
 *
 * AFTER_SKIP as soon as one parent rules the run out, even if others are
 * awaited: what they do cannot change it.  AFTER_RUN when all have met their
 * conditions.  A parent that was skipped meets none, "finished" included: no
 * run of it has finished.  *which, if not NULL, gets the number of the parent
 * that decides: of those that rule the run out the first with an outcome, or
 * else the first without; of those awaited the first; -1 for AFTER_RUN.
 */
extern AfterVerdict clockwork_after_decide(const AfterParent *parents, int count, int *which);

/* Does this outcome of a run, if it has one, meet the condition? */
extern bool clockwork_after_meets(ScheduleCondition condition, AfterOutcome outcome);

/* The outcome that a record of this status stands for; open ones are awaited. */
extern AfterOutcome clockwork_after_outcome(const char *status);

/*
 * The reason of the child's record when a parent with this outcome rules it
 * out: "parent_failed", "parent_succeeded", "parent_skipped" or
 * "parent_missing".
 */
extern const char *clockwork_after_reason(AfterOutcome outcome);

#endif							/* CLOCKWORK_CORE_AFTER_H */
