/*
 * The rules of @after.
 */
#include "after.h"

#include <string.h>

bool
clockwork_after_meets(ScheduleCondition condition, AfterOutcome outcome)
{
	switch (condition)
	{
		case SCHEDULE_SUCCEEDED:
			return outcome == AFTER_SUCCEEDED;
		case SCHEDULE_FAILED:
			return outcome == AFTER_FAILED;
		case SCHEDULE_FINISHED:
			return outcome == AFTER_SUCCEEDED || outcome == AFTER_FAILED;
	}
	return false;
}

AfterVerdict
clockwork_after_decide(const AfterParent *parents, int count, int *which)
{
	int			contrary = -1;
	int			missing = -1;
	int			awaited = -1;
	int			i;

	for (i = count - 1; i >= 0; i--)
	{
		if (parents[i].outcome == AFTER_AWAITED)
			awaited = i;
		else if (parents[i].outcome == AFTER_MISSING)
			missing = i;
		else if (!clockwork_after_meets(parents[i].condition, parents[i].outcome))
			contrary = i;
	}
	if (which != NULL)
		*which = contrary >= 0 ? contrary : missing >= 0 ? missing : awaited;
	if (contrary >= 0 || missing >= 0)
		return AFTER_SKIP;
	return awaited >= 0 ? AFTER_WAIT : AFTER_RUN;
}

AfterOutcome
clockwork_after_outcome(const char *status)
{
	if (strcmp(status, "succeeded") == 0)
		return AFTER_SUCCEEDED;
	if (strcmp(status, "failed") == 0)
		return AFTER_FAILED;
	if (strcmp(status, "skipped") == 0)
		return AFTER_SKIPPED;
	return AFTER_AWAITED;
}

const char *
clockwork_after_reason(AfterOutcome outcome)
{
	switch (outcome)
	{
		case AFTER_SUCCEEDED:
			return "parent_succeeded";
		case AFTER_FAILED:
			return "parent_failed";
		case AFTER_SKIPPED:
			return "parent_skipped";
		case AFTER_AWAITED:
		case AFTER_MISSING:
			break;
	}
	return "parent_missing";
}
