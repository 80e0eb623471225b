/*
 * Executing the decisions of the core on runs.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "guc.h"
#include "run_policy.h"
#include "zone.h"

#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* ---- what becomes of a due time ---- */

static bool
has_started(const Run *run)
{
	return run->slot >= 0;
}

/* Is it over, though its record is not written yet? */
static bool
has_ended(const Run *run)
{
	return run->slot >= 0 &&
		(run->ended || slot_state(clockwork_shmem_slot(run->slot)) == SLOT_ENDED);
}

static bool
is_catching_up(const Run *run)
{
	return strcmp(run->trigger, "catch_up") == 0;
}

/* No attempt at an earlier due time begins when the next one, `due`, has come. */
static void
give_up_attempts(Job *job, dlist_head *list, TimestampTz due)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
	{
		Run		   *run = run_of_job(iter.cur);

		if (has_started(run) || run->attempt == 1 || run->asked || run->due_time >= due)
			continue;
		clockwork_run_skip(run, "superseded",
						   "the next due time came before this attempt could start");
		job->failures = clockwork_policy_streak(job->failures, POLICY_FAILED);
	}
}

static void
give_up_all_attempts(Job *job, TimestampTz due)
{
	give_up_attempts(job, &job->resting, due);
	give_up_attempts(job, &job->waiting, due);
	give_up_attempts(job, &job->under_way, due);
}

/*
 * `as_started`: whether one that is under way has its slot yet makes no
 * difference.
 */
static void
add_load(dlist_head *list, bool as_started, PolicyLoad *load)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
	{
		Run		   *run = run_of_job(iter.cur);

		if (has_ended(run))
			continue;
		if (has_started(run) || as_started)
			load->running++;
		else if (run->in_order)
			continue;			/* it stands back */
		else if (is_catching_up(run))
			load->catching_up++;
		else
			load->unstarted++;
	}
}

/* Stop what runs, and skip what has not started: a later due time is here. */
static void
replace_all(Job *job)
{
	dlist_mutable_iter iter;
	dlist_head *lists[] = {&job->waiting, &job->under_way};

	for (int i = 0; i < lengthof(lists); i++)
		dlist_foreach_modify(iter, lists[i])
		{
			Run		   *run = run_of_job(iter.cur);

			if (!has_started(run) && run->in_order)
				continue;		/* its turn comes */

			if (!has_started(run) || (!run->in_order && clockwork_run_take_back(run)))
				clockwork_run_skip(run, "replaced", "a later due time took its place");
			else if (!has_ended(run))
				clockwork_run_policy_stop(run, "replaced");
		}
}

static const char *
overlap_message(const Job *job)
{
	switch (job->definition.rules->on_overlap)
	{
		case POLICY_SKIP:
			return "an earlier run of the job had not ended";
		case POLICY_PARALLEL:
			return "as many runs of the job as may go on at once had not ended";
		default:
			return "an earlier run of the job was still waiting to start";
	}
}

void
clockwork_run_policy_admit(Run *run)
{
	PolicyLimits limits = clockwork_run_limits();
	PolicyLoad	load = {0};
	Job		   *job = run->job;

	if (job->schedule.kind == SCHEDULE_AFTER)
	{
		/* Its time has come now that the others have ended. */
		run->deadline = clockwork_run_deadline(job, launcher.now.wall);
		clockwork_run_set_alarm(run, run->deadline);
	}
	if (run->in_order)
	{
		clockwork_run_line_up(run, false);
		return;
	}

	/* What people ask for says nothing about the attempts at due times. */
	if (!run->asked)
		give_up_all_attempts(job, run->due_time);
	add_load(&job->under_way, run->asked, &load);
	add_load(&job->waiting, false, &load);
	switch (clockwork_policy_arrive(job->definition.rules, &limits, &load))
	{
		case POLICY_DROP:
			clockwork_run_skip(run, "overlap", overlap_message(job));
			return;
		case POLICY_TAKE_OVER:
			replace_all(job);
			break;
		case POLICY_TAKE:
			break;
	}
	clockwork_run_line_up(run, false);
}

/*
 * Has the due time had its run, or its record, before the clock was set back?
 * Otherwise the history would know: but the job's does not keep everything.
 */
static bool
is_settled(const Job *job)
{
	return job->schedule.kind == SCHEDULE_CALENDAR &&
		job->due_time >= launcher.settled_from && job->due_time < job->trimmed_to;
}

/* The run for a due time of the job: the record of one that was withdrawn is its own. */
static Run *
create_run(Job *job, TimestampTz due, const char *trigger)
{
	Run		   *run = clockwork_run_create(job, due, 1, trigger);

	run->runid = clockwork_run_take_withdrawn(job, due);
	return run;
}

void
clockwork_run_policy_due(Job *job)
{
	TimestampTz due = job->due_time;
	bool		settled = is_settled(job);

	clockwork_job_list_advance(job, due);
	if (settled)
		return;

	/* After a restart, a one-time job is due again whose run is taken up already. */
	if (clockwork_run_find(job, due) == NULL)
		clockwork_run_policy_admit(create_run(job, due, "schedule"));
}

bool
clockwork_run_policy_is_simple(Job *job)
{
	return (job->schedule.kind == SCHEDULE_CALENDAR || job->schedule.kind == SCHEDULE_INTERVAL) &&
		clockwork_job_may_run(job) && !job->is_unknown && job->known_as == NULL &&
		dlist_is_empty(&job->under_way) && dlist_is_empty(&job->waiting) &&
		dlist_is_empty(&job->awaiting) && dlist_is_empty(&job->resting) && !is_settled(job);
}

Run *
clockwork_run_policy_anticipate(Job *job)
{
	TimestampTz due = job->due_time;
	Run		   *run;

	clockwork_job_list_advance(job, due);
	run = create_run(job, due, "schedule");
	run->is_ahead = true;
	clockwork_run_put_under_way(run);
	clockwork_run_count(run);
	return run;
}

/* The due times of a job, in the core's terms. */
static bool
walk_on(void *arg, int64_t after, int64_t *due, int64_t *start)
{
	Job		   *job = arg;
	TimestampTz next = clockwork_job_next_due(job, clockwork_zone_timestamp(after));

	if (next == DT_NOEND)
		return false;
	*due = clockwork_zone_instant(next);
	*start = clockwork_zone_instant(clockwork_job_start_of(job, next));
	return true;
}

static char *
missed_message(const PolicyCatchUp *plan)
{
	if (plan->dropped == 1)
		return pstrdup("the launcher was not there to run it");
	return psprintf("the launcher was not there to run it, nor %s%d due times before it, from %s on",
					plan->is_more ? "more than " : "", plan->dropped - 1,
					timestamptz_to_str(clockwork_zone_timestamp(plan->first_dropped)));
}

void
clockwork_run_policy_missed(Job *job, TimestampTz horizon)
{
	static PolicyCatchUp plan;
	PolicyWalk	walk = {walk_on, job};
	TimestampTz last = job->due_time;

	/* After a restart, a one-time job is due again whose run is taken up already. */
	if (is_settled(job) || clockwork_run_find(job, last) != NULL)
	{
		clockwork_job_list_advance(job, last);
		return;
	}
	clockwork_policy_catch_up(job->definition.rules, &walk, clockwork_zone_instant(last) - 1,
							  clockwork_zone_instant(horizon),
							  clockwork_zone_instant(launcher.now.wall), &plan);
	give_up_all_attempts(job, last);
	if (plan.dropped > 0)
	{
		last = clockwork_zone_timestamp(plan.last_dropped);
		clockwork_run_skip_due_time(job, last, clockwork_run_take_withdrawn(job, last), "missed",
									missed_message(&plan));
	}
	for (int i = 0; i < plan.kept; i++)
	{
		TimestampTz due = clockwork_zone_timestamp(plan.due[i]);

		clockwork_run_line_up(create_run(job, due, "catch_up"), false);
		last = Max(last, due);
	}
	clockwork_job_list_advance(job, last);
}

/* ---- stopping ---- */

/* As good as never, and can be added to any time. */
#define NO_TERMINATION (INT64CONST(100) * 365 * USECS_PER_DAY)

static void watch_run(Run *run);

/* False if there is no process to be told yet, or any more. */
static bool
send_signal(const Run *run, int signal)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	/* The slot is this run's until its process has gone; so is the pid. */
	if (run->ended || slot_state(slot) != SLOT_RUNNING || slot->pid == 0 ||
		BackendPidGetProc(slot->pid) == NULL)
		return false;
	return kill(slot->pid, signal) == 0;
}

/* Cancel it, and terminate it when it has not ended after `grace`. */
static void
stop(Run *run, const char *reason, int64 grace)
{
	if (run->stop_reason == NULL)
	{
		run->stop_reason = reason;
		run->grace = grace;
	}
	if (run->stopped_at != POLICY_NEVER)
		return;
	if (!send_signal(run, SIGINT))
	{
		/* Its worker is not there yet: look again soon. */
		clockwork_run_set_alarm(run, launcher.now.monotonic + RETRY_MS * 1000L);
		return;
	}
	run->stopped_at = launcher.now.monotonic;
	watch_run(run);
}

void
clockwork_run_policy_stop(Run *run, const char *reason)
{
	stop(run, reason, clockwork_run_limits().grace);
}

bool
clockwork_run_policy_cancel(Run *run, const char *by, int64 grace)
{
	RunSlot    *slot;

	if (!has_started(run) || (run->job && clockwork_run_take_back(run)))
	{
		clockwork_run_cancel_unstarted(run, by);
		return true;
	}
	if (has_ended(run))
		return false;

	slot = clockwork_shmem_slot(run->slot);
	grace = grace < 0 ? NO_TERMINATION : grace;
	if (run->stop_reason == NULL)
	{
		slot->cancel.is_asked = true;
		strlcpy(NameStr(slot->cancel.by), by, NAMEDATALEN);
		slot->cancel.terminate_at = launcher.now.monotonic + grace;
		stop(run, "canceled", grace);
	}
	else if (run->stopped_at != POLICY_NEVER)
	{
		/* Who asks again may shorten the grace period, but not lengthen it. */
		run->grace = Min(run->grace, launcher.now.monotonic - run->stopped_at + grace);
		slot->cancel.terminate_at = Min(slot->cancel.terminate_at, run->stopped_at + run->grace);
		(void) send_signal(run, SIGINT);
		watch_run(run);
	}
	(void) clockwork_run_end_unattached(run, CANCEL_MESSAGE);
	return true;
}

/*
 * When the command began; while it has not, when its worker was asked for.  The
 * beginning is known by the wall clock, which may have been set since: it is
 * believed within a minute after the worker was asked for.
 */
static int64
began_at(const Run *run)
{
	TimestampTz start = clockwork_shmem_slot(run->slot)->start_time;
	int64		latest = run->launched_at + USECS_PER_MINUTE;

	if (start == 0)
		return run->launched_at;
	return Max(run->launched_at,
			   Min(latest, launcher.now.monotonic - (launcher.now.wall - start)));
}

/* A run in a slot: has it lasted too long, or outlived its grace period? */
static void
watch_run(Run *run)
{
	PolicyWatch watch;

	clockwork_run_set_alarm(run, POLICY_NEVER);
	if (has_ended(run) || slot_state(clockwork_shmem_slot(run->slot)) < SLOT_LAUNCHED)
		return;					/* it is launched yet, and looked at after that */
	if (run->stop_reason && run->stopped_at == POLICY_NEVER)
	{
		stop(run, run->stop_reason, run->grace);
		return;
	}
	watch = clockwork_policy_watch(run->timeout, run->grace, began_at(run),
								   run->stopped_at, run->terminated_at, launcher.now.monotonic);
	clockwork_run_set_alarm(run, watch.look_again);
	if (watch.action == POLICY_CANCEL)
		clockwork_run_policy_stop(run, "timeout");
	else if (watch.action == POLICY_TERMINATE)
	{
		(void) send_signal(run, SIGTERM);
		run->terminated_at = launcher.now.monotonic;
	}
}

void
clockwork_run_policy_launched(Run *run)
{
	run->timeout = run->job ? run->job->definition.rules->timeout : 0;
	clockwork_run_set_alarm(run, run->timeout > 0 ? run->launched_at + run->timeout : POLICY_NEVER);
}

void
clockwork_run_policy_adopted(Run *run)
{
	run->timeout = run->job->definition.rules->timeout;
	if (run->timeout > 0)
		clockwork_run_set_alarm(run, launcher.now.monotonic);
	clockwork_run_count(run);
}

/* ---- when it is time ---- */

static void
look_at(Run *run)
{
	clockwork_run_set_alarm(run, POLICY_NEVER);
	if (has_started(run))
		watch_run(run);
	else if (run->place == RUN_RESTING)
		clockwork_run_line_up(run, true);
	else if (run->job && run->deadline <= launcher.now.monotonic)
	{
		Job		   *job = run->job;

		clockwork_run_skip(run, "too_late", "it could not start within its start_deadline");
		clockwork_run_promote_waiting(job);
	}
}

static void
abandon_paused(Job *job, void *arg)
{
	if (job->definition.is_paused)
		clockwork_run_abandon_all(job, false, "paused", "the job was paused");
}

void
clockwork_run_policy_look(void)
{
	DueEntry   *first;

	if (launcher.pausing)
		clockwork_job_list_visit(abandon_paused, NULL);
	launcher.pausing = false;
	while ((first = clockwork_due_heap_first(&launcher.alarms)) != NULL &&
		   first->key <= launcher.now.monotonic)
		look_at(run_of_alarm(first));
}

/* ---- what follows ---- */

bool
clockwork_run_policy_was_stopped(const Run *run)
{
	int			sqlerrcode = clockwork_shmem_slot(run->slot)->outcome.sqlerrcode;

	/* A worker that is told to end before it has begun may die without a word. */
	return run->stop_reason &&
		(sqlerrcode == ERRCODE_QUERY_CANCELED || sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		 (sqlerrcode == ERRCODE_INTERNAL_ERROR && strcmp(run->stop_reason, "canceled") == 0));
}

PolicyOutcome
clockwork_run_policy_outcome(const Run *run)
{
	const SlotOutcome *outcome = &clockwork_shmem_slot(run->slot)->outcome;

	if (outcome->succeeded)
		return POLICY_SUCCEEDED;
	if (clockwork_run_policy_was_stopped(run) ||
		outcome->sqlerrcode == ERRCODE_QUERY_CANCELED || outcome->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
	{
		if (run->stop_reason)
			return strcmp(run->stop_reason, "timeout") == 0 ? POLICY_FAILED : POLICY_CANCELED;
		return outcome->is_cancel ? POLICY_CANCELED : POLICY_FAILED;
	}
	return POLICY_FAILED;
}

static int64
retry_at(Job *job, TimestampTz due_time, int attempt, PolicyOutcome outcome,
		 const char *sqlstate, TimestampTz now)
{
	PolicyLimits limits = clockwork_run_limits();
	TimestampTz next = clockwork_job_next_due(job, due_time);

	return clockwork_policy_retry(job->definition.rules, &limits, job->jobid,
								  clockwork_zone_instant(due_time),
								  next == DT_NOEND ? POLICY_NEVER : clockwork_job_start_of(job, next),
								  attempt, outcome, sqlstate, now);
}

/* Another attempt begins at `at`, a TimestampTz. */
static void
rest(Job *job, TimestampTz due_time, int attempt, TimestampTz at)
{
	Run		   *run = clockwork_run_create(job, due_time, attempt, "retry");

	clockwork_run_put_resting(run);
	clockwork_run_set_alarm(run, launcher.now.monotonic + Max(at - launcher.now.wall, 0));
}

/*
 * So many failures in a row that the job pauses.  Its runs that wait are left
 * to the next pass: this one may be about to confirm their records.
 */
static void
pause_failing(Job *job)
{
	Retiree    *retiree = MemoryContextAllocZero(launcher.run_context, sizeof(Retiree));
	char	   *reason = psprintf("paused after %d consecutive failures, the last one noted at %s",
								  job->failures, timestamptz_to_str(launcher.now.wall));

	retiree->jobid = job->jobid;
	retiree->pause_reason = MemoryContextStrdup(launcher.run_context, reason);
	dlist_push_tail(&launcher.retirees, &retiree->node);
	job->definition.is_paused = true;	/* nothing of it starts until that is read again */
	clockwork_job_list_advance(job, launcher.now.wall);
	launcher.pausing = true;
	ereport(LOG,
			(errmsg("cron job " INT64_FORMAT " is paused after %d consecutive failures",
					job->jobid, job->failures)));
}

void
clockwork_run_policy_ended(Run *run, PolicyOutcome outcome, int sqlerrcode)
{
	Job		   *job = run->job;
	int64		at = POLICY_NEVER;

	if (clockwork_job_may_run(job) && strcmp(run->trigger, "manual") != 0)
		at = retry_at(job, run->due_time, run->attempt, outcome,
					  sqlerrcode ? unpack_sql_state(sqlerrcode) : NULL, launcher.now.wall);
	if (at != POLICY_NEVER)
		rest(job, run->due_time, run->attempt + 1, at);
	else
	{
		job->failures = clockwork_policy_streak(job->failures, outcome);
		clockwork_run_note_outcome(job, run->due_time,
								   outcome == POLICY_SUCCEEDED ? AFTER_SUCCEEDED : AFTER_FAILED,
								   run->runid, NULL);
	}
	if (at == POLICY_NEVER && clockwork_job_may_run(job) &&
		clockwork_policy_must_pause(job->definition.rules, job->failures))
		pause_failing(job);
	else
		clockwork_run_promote_waiting(job);
}

/* ---- after a restart ---- */

static PolicyOutcome
past_outcome(const PastRun *past)
{
	static const char *const wanted[] = {"canceled", "terminated", "replaced"};

	if (past->succeeded)
		return POLICY_SUCCEEDED;
	for (int i = 0; past->reason && i < lengthof(wanted); i++)
		if (strcmp(past->reason, wanted[i]) == 0)
			return POLICY_CANCELED;
	return past->sqlstate ? POLICY_FAILED : POLICY_CRASHED;
}

static bool
has_due_time(dlist_head *list, TimestampTz due_time)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		if (run_of_job(iter.cur)->due_time >= due_time)
			return true;
	return false;
}

void
clockwork_run_policy_rebuild(Job *job, const PastRun *past, int count)
{
	TimestampTz counted = 0;
	int64		at = POLICY_NEVER;
	int			streak = 0;

	job->is_unknown = false;
	if (count > 0 && clockwork_job_may_run(job) && strcmp(past->trigger, "manual") != 0 &&
		!has_due_time(&job->under_way, past->due_time) &&
		!has_due_time(&job->waiting, past->due_time) &&
		!has_due_time(&job->resting, past->due_time))
	{
		TimestampTz next = clockwork_job_next_due(job, past->due_time);

		if (next == DT_NOEND || clockwork_job_start_of(job, next) > launcher.now.wall)
			at = retry_at(job, past->due_time, past->attempt, past_outcome(past), past->sqlstate,
						  past->end_time);
	}
	if (at != POLICY_NEVER)
		rest(job, past->due_time, past->attempt + 1, at);

	/* The last attempt at each due time says how that ended. */
	for (int i = 0; i < count; i++)
	{
		PolicyOutcome outcome = past_outcome(&past[i]);

		if (past[i].due_time == counted || (i == 0 && at != POLICY_NEVER))
		{
			counted = past[i].due_time;
			continue;
		}
		counted = past[i].due_time;
		if (outcome == POLICY_SUCCEEDED)
			break;
		streak = clockwork_policy_streak(streak, outcome);
	}
	job->failures = Max(job->failures, streak);
	if (clockwork_job_may_run(job) &&
		clockwork_policy_must_pause(job->definition.rules, job->failures))
		pause_failing(job);
}
