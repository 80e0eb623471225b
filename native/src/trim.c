/*
 * Removing the records that the history of their job does not keep.
 *
 * A record is more than news: it keeps its due time from a second run, carries
 * attempts and failures over a restart, and tells those who wait for the run or
 * run after it how it ended.  So every run is recorded, whatever the option
 * "history" says, and a record goes only when a later one of its job is final
 * and nothing open is as old: the last one is always there.  What was removed
 * is known by one time per job, trimmed_to, for the case that the clock is set
 * back.
 *
 * Removing is nothing that anybody waits for.  It is done once a second at most,
 * for all jobs in one transaction, and waits for no lock of a row.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"
#include "run_after.h"
#include "session.h"
#include "trim.h"

#include "utils/timestamp.h"

/* The pause after one removal, and after one that failed. */
#define TRIM_MS 1000
#define FAILED_MS 10000

/* So many jobs and records of each are looked at in one transaction. */
#define JOBS_PER_PASS 100
#define RECORDS_PER_JOB 1000

static int64 trim_at = 0;		/* monotonic; not before that */
static bool one_by_one = false; /* some job's records could not be removed */

static TimestampTz
earliest_unasked(dlist_head *list, TimestampTz bound)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		if (!run_of_job(iter.cur)->asked)
			bound = Min(bound, run_of_job(iter.cur)->due_time);
	return bound;
}

/* What is still open, here or in a job that waits for this one, is not before this. */
static TimestampTz
earliest_open(Job *job)
{
	TimestampTz bound = clockwork_after_earliest_awaited(job);

	bound = earliest_unasked(&job->under_way, bound);
	bound = earliest_unasked(&job->waiting, bound);
	bound = earliest_unasked(&job->resting, bound);
	return earliest_unasked(&job->awaiting, bound);
}

/* Where a job has got to, to be made true when it is committed. */
typedef struct Trimmed
{
	Job		   *job;
	TimestampTz to;
	bool		is_done;		/* no more records up to there */
} Trimmed;

static Trimmed
trim_job(Job *job)
{
	bool		only_succeeded = job->definition.history == HISTORY_FAILURES;
	TimestampTz newest;
	Trimmed		trimmed = {job, job->trimmed_to, true};

	newest = clockwork_run_log_newest_final(job->jobid, job->trimmed_to,
											clockwork_run_trims_on_success(job));
	if (newest == 0)
		return trimmed;
	trimmed.to = Min(newest, earliest_open(job));
	if (trimmed.to > job->trimmed_to)
		trimmed.is_done = clockwork_run_log_trim(job->jobid, job->trimmed_to, trimmed.to,
												 only_succeeded, RECORDS_PER_JOB) < RECORDS_PER_JOB;
	return trimmed;
}

static void
forget(Job *job)
{
	job->must_trim = false;
	dlist_delete(&job->of_trims);
}

/* The first jobs of the list: how many.  Those whose past is not known yet are left. */
static int
choose_jobs(Trimmed *jobs)
{
	int			most = one_by_one ? 1 : JOBS_PER_PASS;
	int			count = 0;
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &launcher.trims)
	{
		Job		   *job = dlist_container(Job, of_trims, iter.cur);

		if (job->definition.history == HISTORY_ALL)
			forget(job);
		else if (!job->is_unknown && count < most)
			jobs[count++].job = job;
	}
	return count;
}

/* Returns whether it worked; *sqlerrcode says why not. */
static bool
try_to_trim(Trimmed *jobs, int count, int *sqlerrcode)
{
	volatile bool done = false;

	PG_TRY();
	{
		ExtensionObjects objects;
		ExtensionSection section;

		clockwork_session_begin();
		if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
		{
			clockwork_extension_enter(&section, objects.owner);
			for (int i = 0; i < count; i++)
				jobs[i] = trim_job(jobs[i].job);
			clockwork_extension_leave(&section);
			done = true;
		}
		clockwork_session_commit();
	}
	PG_CATCH();
	{
		*sqlerrcode = clockwork_session_recover(launcher.pass_context, count > 1);
		done = false;
	}
	PG_END_TRY();
	return done;
}

void
clockwork_trim_records(void)
{
	Trimmed		jobs[JOBS_PER_PASS];
	int			count;
	int			sqlerrcode = 0;

	if (dlist_is_empty(&launcher.trims) || !clockwork_run_is_time(trim_at))
		return;
	trim_at = launcher.now.monotonic + TRIM_MS * 1000L;
	if ((count = choose_jobs(jobs)) == 0)
		return;
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT_SHORT);
	if (try_to_trim(jobs, count, &sqlerrcode))
	{
		for (int i = 0; i < count; i++)
		{
			if (!jobs[i].is_done)
				continue;
			jobs[i].job->trimmed_to = jobs[i].to;
			forget(jobs[i].job);
		}
	}
	else if (count > 1)
		one_by_one = true;
	else
	{
		/* With its next record it is looked at again. */
		forget(jobs[0].job);
		trim_at = launcher.now.monotonic + FAILED_MS * 1000L;
	}
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT);
	if (dlist_is_empty(&launcher.trims))
		one_by_one = false;
	else
		(void) clockwork_run_is_time(trim_at);
}
