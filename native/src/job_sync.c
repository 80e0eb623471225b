/*
 * Keeping the launcher's jobs in step with cron.job.
 *
 * Committed changes arrive as ids and are read one by one; whatever could be
 * missed (a TRUNCATE, too many ids, a transaction prepared and committed
 * elsewhere, the extension coming and going) arrives as an invalidation, and
 * everything is read.
 */
#include "postgres.h"

#include "compat.h"
#include "catalog.h"
#include "execute.h"
#include "extension.h"
#include "guc.h"
#include "job_rows.h"
#include "job_sync.h"
#include "run_after.h"
#include "run_policy.h"
#include "run_request.h"
#include "session.h"
#include "zone.h"

#include "access/xact.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

static bool is_loaded = false;	/* jobs and open records are known */
static TimestampTz news_since = 0;	/* the first change not yet read was committed
									 * then; 0: unknown */
static bool has_synced = false; /* has this process looked for them at all? */
static TimestampTz started_at;	/* when this process began */
static TimestampTz load_from;	/* in a first load, due times after this count */
static TimestampTz load_trimmed_from = DT_NOBEGIN;	/* likewise, for jobs whose history does
													 * not keep everything */
static RunRange orphans;		/* records that may be orphans; up_to 0: none */
static int64 unseen_up_to = 0;	/* older ones that nobody has looked at yet; 0: none */
static int64 look_back_at = 0;	/* monotonic; not before that */
static bool takes_up_all = false;	/* of what waits there, not only what was asked for */
static bool takes_up_asked = false;
static bool is_successor = false;	/* the server has gone on since those were written */
static int64 asked_orphans_up_to = 0;	/* likewise those that wait and were asked for */
static int64 close_orphans_at = 0;	/* monotonic; not before that */
static int64 rebuild_at = 0;	/* monotonic; not before that; 0: nothing to rebuild */
static TimestampTz resumed_at = 0;	/* when a pause of everything ended */

/* Runs that were asked for, until they are taken in: an error loses none. */
static int64 requests[CLOCKWORK_MAX_REQUESTS];
static int	nrequests = 0;
static int64 requests_from = 0;	/* too many: all from this runid on */
static int64 requests_at = 0;	/* monotonic; not before that */

/* The job's row is gone, or the extension is. */
static void
drop_job(Job *job)
{
	dlist_mutable_iter iter;

	clockwork_run_abandon_all(job, true, "unscheduled", "the job was unscheduled");
	dlist_foreach_modify(iter, &job->under_way)
	{
		Run		   *run = run_of_job(iter.cur);

		/* It goes on to its end. */
		clockwork_run_take_out(run);
		run->job = NULL;
	}
	clockwork_after_drop_job(job);
	clockwork_job_list_remove(job);
}

/* Runs of a job that is no longer to run do not start. */
static void
settle_inactive(Job *job)
{
	if (!job->definition.active || job->problem)
		clockwork_run_abandon_all(job, job->definition.held, "inactive", "the job was made inactive");
	else if (job->definition.is_paused)
		clockwork_run_abandon_all(job, false, "paused", "the job was paused");
}

static void
put_job(const JobDefinition *definition, void *arg)
{
	Job		   *job = clockwork_job_list_find(definition->jobid);
	TimestampTz from = *(TimestampTz *) arg;
	dlist_iter	iter;

	if (!has_synced && definition->history != HISTORY_ALL)
		from = Max(from, load_trimmed_from);

	/* What was begun ahead was begun for the job as it was. */
	if (job && !clockwork_job_list_is_known(job, definition))
		clockwork_run_withdraw_all(job);
	job = clockwork_job_list_put(definition, from, clockwork_clock_read().wall, has_synced);

	clockwork_after_put_job(job);
	settle_inactive(job);
	if (job->history != definition->history || !has_synced)
	{
		/* What is there already, too. */
		job->history = definition->history;
		job->trimmed_to = DT_NOBEGIN;
		clockwork_run_must_trim(job, DT_NOEND, true);
	}
	if (job->problem && !job->problem_reported)
		launcher.problems_pending = true;
	dlist_foreach(iter, &job->under_way)
		if (run_of_job(iter.cur)->rank.place != 0)
			clockwork_run_make_ready(run_of_job(iter.cur)); /* its priority may have changed */
}

/* Is everything paused? */
static void
load_pause(const ExtensionObjects *objects)
{
	PauseState	pause;
	bool		is_paused;

	clockwork_catalog_read_pause(objects, &pause);
	is_paused = pause.reason != NULL;
	if (is_paused != launcher.is_paused)
		ereport(LOG,
				(errmsg(is_paused ? "all jobs are paused" : "all jobs are resumed"),
				 is_paused ? errdetail("%s", pause.reason) : 0));
	launcher.is_paused = is_paused;
	resumed_at = is_paused ? 0 : pause.changed_at;
}

/* A job that changed has due times from then on, also those that have passed. */
static TimestampTz
news_from(void)
{
	return news_since != 0 ? Min(news_since, launcher.now.wall) : launcher.now.wall;
}

static void
load_all_jobs(const ExtensionObjects *objects)
{
	/* What this process was there to see come has no past. */
	TimestampTz from = has_synced ? news_from() : load_from;

	clockwork_job_list_begin_load();
	clockwork_job_rows_visit(objects, NULL, -1, put_job, &from);
	clockwork_job_list_sweep(drop_job);
	clockwork_after_link();
}

static void
load_changed_jobs(const ExtensionObjects *objects, const int64 *jobids, int count)
{
	TimestampTz from = news_from();

	clockwork_job_list_begin_load();
	clockwork_job_rows_visit(objects, jobids, count, put_job, &from);
	for (int i = 0; i < count; i++)
	{
		Job		   *job = clockwork_job_list_find(jobids[i]);

		if (job && !clockwork_job_list_seen(job))
			drop_job(job);
	}
	clockwork_after_link();
}

/* Runs asked for since the last call join those that an error left. */
static void
take_requests(void)
{
	int64	   *runids = MemoryContextAlloc(launcher.pass_context, sizeof(int64) * CLOCKWORK_MAX_REQUESTS);
	int64		from;
	int			count = clockwork_run_request_take(runids, &from);

	if (nrequests + count <= CLOCKWORK_MAX_REQUESTS)
	{
		memcpy(&requests[nrequests], runids, count * sizeof(int64));
		nrequests += count;
	}
	else
	{
		for (int i = 0; i < count; i++)
			from = from == 0 ? runids[i] : Min(from, runids[i]);
	}
	if (from != 0)
		requests_from = requests_from == 0 ? from : Min(requests_from, from);
}

/* Jobs that run once per server start are due now, if they were there then. */
static void
start_reboot_job(Job *job, void *arg)
{
	Run		   *run;

	if (!clockwork_job_may_run(job) || !dlist_is_empty(&job->under_way) ||
		job->schedule.kind != SCHEDULE_REBOOT || !cron_launch_active_jobs ||
		job->definition.active_since > started_at ||
		!clockwork_policy_in_bounds(job->definition.rules, clockwork_zone_instant(launcher.now.wall)))
		return;
	run = clockwork_run_create(job, launcher.now.wall, 1, "schedule");
	clockwork_run_put_under_way(run);
	clockwork_run_make_ready(run);
}

static bool
has_run(dlist_head *list, int64 runid)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		if (run_of_job(iter.cur)->runid == runid)
			return true;
	return false;
}

/*
 * Take up a run that a former launcher queued and no worker has seen.  False
 * if it cannot be.
 */
static bool
requeue(const OpenRecord *record)
{
	Job		   *job = clockwork_job_list_find(record->jobid);
	Run		   *run;

	if (job == NULL || !(record->asked || clockwork_job_may_run(job)))
		return false;
	if (has_run(&job->under_way, record->runid) || has_run(&job->waiting, record->runid))
		return true;			/* a load that failed took it up */
	if (record->is_starting)
		clockwork_run_log_queue(record->runid); /* the next launcher shall see that it has not begun */
	run = clockwork_run_create(job, record->due_time, record->attempt, record->trigger);
	run->runid = record->runid;
	run->order = record->order;
	if (record->asked)
	{
		clockwork_run_ask(run);
		clockwork_run_policy_admit(run);
	}
	else
		clockwork_run_line_up(run, false);
	return true;
}

/* Is the job there, and ours? */
static bool
has_job(const OpenRecord *record)
{
	Job		   *job = clockwork_job_list_find(record->jobid);

	return job && !job->definition.held;
}

/* It will not run any more. */
static void
refuse(const OpenRecord *record, const char *reason, const char *message)
{
	RunEnding	ending;

	memset(&ending, 0, sizeof(ending));
	ending.status = "skipped";
	ending.reason = reason;
	ending.message = message;
	ending.end_time = launcher.now.wall;
	clockwork_run_log_finish(record->runid, &ending);
	clockwork_run_request_note_end(record->runid);
}

/* There is nothing to run it for. */
static void
refuse_request(const OpenRecord *record)
{
	refuse(record, "unscheduled", "the job was unscheduled");
}

/* Its job was removed or stopped while there was no launcher: as if there had been one. */
static void
refuse_stopped(const OpenRecord *record, const Job *job)
{
	bool		is_paused = job && job->definition.active && job->problem == NULL;
	const char *reason = is_paused ? "paused" : "inactive";

	if (job == NULL)
	{
		refuse_request(record);
		return;
	}
	refuse(record, reason, is_paused ? "the job was paused" : "the job was made inactive");
	clockwork_run_note_outcome(job, record->due_time, AFTER_SKIPPED, record->runid, reason);
}

/*
 * Take in the runs that were asked for.  Their jobs are read first: they may
 * have been scheduled or altered by the same transaction.
 */
static void
load_requests(const ExtensionObjects *objects)
{
	ExtensionSection section;
	OpenRecord *records;
	int64	   *jobids;
	int			count;

	clockwork_extension_enter(&section, objects->owner);
	records = clockwork_run_log_requests(requests, nrequests, requests_from, &count);
	clockwork_extension_leave(&section);
	if (count == 0)
		return;
	jobids = palloc(sizeof(int64) * count);
	for (int i = 0; i < count; i++)
		jobids[i] = records[i].jobid;
	load_changed_jobs(objects, jobids, count);

	clockwork_extension_enter(&section, objects->owner);
	for (int i = 0; i < count; i++)
	{
		if (has_job(&records[i]))
			(void) requeue(&records[i]);
		else
			refuse_request(&records[i]);
	}
	clockwork_extension_leave(&section);
}

/* The numbers of some runs. */
typedef struct RunIds
{
	int64	   *runids;
	int			count;
	int			space;
} RunIds;

static void
add_runid(RunIds *list, int64 runid)
{
	if (runid == 0)
		return;
	if (list->count >= list->space)
	{
		list->space *= 2;
		list->runids = repalloc_huge(list->runids, sizeof(int64) * list->space);
	}
	list->runids[list->count++] = runid;
}

static void
add_runs_of_job(Job *job, void *arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->under_way)
		add_runid(arg, run_of_job(iter.cur)->runid);
	dlist_foreach(iter, &job->waiting)
		add_runid(arg, run_of_job(iter.cur)->runid);
	dlist_foreach(iter, &job->awaiting)
		add_runid(arg, run_of_job(iter.cur)->runid);
	dlist_foreach(iter, &job->resting)
		add_runid(arg, run_of_job(iter.cur)->runid);
}

/* Had a former launcher just committed the beginning of this run? */
static bool
was_claimed(int64 runid)
{
	for (int i = 0; i < launcher.nclaimed; i++)
		if (launcher.claimed[i] == runid)
			return true;
	return false;
}

/* A run that was interrupted before it could commit anything. */
static void
add_if_plain(int64 runid, const char *command, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool plain = true;

	/* What cannot be parsed has not committed anything either. */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		plain = clockwork_execute_is_plain(command);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		plain = ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION;
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (plain)
		add_runid(arg, runid);
}

/*
 * What becomes of a record that is open and has no live run: runs that waited
 * for other jobs, or only for their turn after those, go on even if the server
 * was away, and so do those of a job that makes up for missed due times; others
 * if only the launcher was.
 */
static void
take_up_record(const OpenRecord *record)
{
	Job		   *job = clockwork_job_list_find(record->jobid);

	for (int s = 0; s < launcher.panel->nslots; s++)
		if (launcher.slot_runs[s] && launcher.slot_runs[s]->runid == record->runid)
			return;

	/* One that is starting may have run, unless it never got a worker. */
	if (record->is_starting && !(is_successor && was_claimed(record->runid)))
		return;
	if (record->asked && record->runid > asked_orphans_up_to)
	{
		/* Perhaps it was asked for before the first launcher of this server came. */
		if (!has_job(record))
			refuse_request(record);
		else
			(void) requeue(record);
		return;
	}
	if (record->is_awaiting ? clockwork_after_take_up(record) :
		!record->asked && (is_successor || strcmp(record->trigger, "after") == 0 ||
						   (job && job->definition.rules->on_missed != POLICY_MISSED_SKIP)) && requeue(record))
		return;
	if (is_successor && !(job && clockwork_job_may_run(job)))
		refuse_stopped(record, job);
	else if (job)
		clockwork_run_note_outcome(job, record->due_time, AFTER_SKIPPED, record->runid,
								   "server_restart");
}

/*
 * Jobs that were scheduled after all jobs had been read, and asked to run
 * before the records were.
 */
static void
load_unknown_jobs(const ExtensionObjects *objects, const OpenRecord *records, int count)
{
	int64	   *jobids = palloc(sizeof(int64) * Max(count, 1));
	int			unknown = 0;

	for (int i = 0; i < count; i++)
		if (records[i].asked && clockwork_job_list_find(records[i].jobid) == NULL)
			jobids[unknown++] = records[i].jobid;
	if (unknown > 0)
		load_changed_jobs(objects, jobids, unknown);
}

/*
 * What was left open is among the newest records as a rule, so those are looked
 * at before anything is due: a few, and many if one of the few is open, so that
 * runs of one job that wait among both keep their order.
 * The others are looked at bit by bit, however long the history is, between the
 * launcher's other work.
 */
#define FEW_RECENT 200
#define MANY_RECENT 2000
#define RECORDS_PER_LOOK 20000
#define FIRST_LOOK_MS 500
#define LOOK_PAUSE_MS 20

/* The open records of a range that may go on, the oldest first. */
static OpenRecord *
find_open_records(const ExtensionObjects *objects, RunRange range, int *count)
{
	ExtensionSection section;
	OpenRecord *records;

	*count = 0;
	if (!takes_up_asked)
		return NULL;
	clockwork_extension_enter(&section, objects->owner);
	records = clockwork_run_log_open_records(range, count);
	clockwork_extension_leave(&section);
	return records;
}

/* Take up those of them that go on. */
static void
take_up_records(const ExtensionObjects *objects, const OpenRecord *records, int count)
{
	ExtensionSection section;

	load_unknown_jobs(objects, records, count);
	clockwork_extension_enter(&section, objects->owner);
	for (int i = 0; i < count; i++)
		if (records[i].asked || takes_up_all)
			take_up_record(&records[i]);
	clockwork_extension_leave(&section);
}

/* So many of the newest records are looked at from now on, and older ones later. */
static void
look_at_newest(const ExtensionObjects *objects, int number)
{
	ExtensionSection section;

	clockwork_extension_enter(&section, objects->owner);
	orphans.after = clockwork_run_log_find_nth_newest(number);
	clockwork_extension_leave(&section);
	unseen_up_to = orphans.after;
}

/*
 * Take up again what a former launcher left waiting.  All other open records
 * up to here have no live run: see close_orphans.
 */
static void
recover_records(const ExtensionObjects *objects)
{
	ExtensionSection section;
	OpenRecord *records;
	int64		first_request;
	int			count;

	clockwork_extension_enter(&section, objects->owner);
	orphans.up_to = clockwork_run_log_newest_runid();
	look_back_at = launcher.now.monotonic + FIRST_LOOK_MS * 1000L;
	first_request = clockwork_run_request_first(launcher.job_table);
	asked_orphans_up_to = launcher.panel->recovered && !has_synced ? 0 : first_request != 0 ? first_request : orphans.up_to;
	clockwork_extension_leave(&section);
	is_successor = launcher.panel->recovered;
	takes_up_all = !has_synced;
	takes_up_asked = takes_up_all || first_request != 0;

	/* Newer ones as well: what was asked for since waits there. */
	look_at_newest(objects, FEW_RECENT);
	records = find_open_records(objects, (RunRange) {orphans.after, PG_INT64_MAX}, &count);
	if (count > 0)
	{
		look_at_newest(objects, MANY_RECENT);
		records = find_open_records(objects, (RunRange) {orphans.after, PG_INT64_MAX}, &count);
	}
	take_up_records(objects, records, count);
}

/* Close the records of a range that were open when this launcher began and have no live run. */
static void
close_orphans(const ExtensionObjects *objects, RunRange range)
{
	ExtensionSection section;
	RunIds		live = {0};
	RunIds		harmless = {0};
	uint64		closed;
	dlist_iter	iter;

	clockwork_extension_enter(&section, objects->owner);
	live.space = launcher.panel->nslots;
	live.runids = palloc(sizeof(int64) * live.space);
	clockwork_job_list_visit(add_runs_of_job, &live);
	for (int s = 0; s < launcher.panel->nslots; s++)
		if (launcher.slot_runs[s] && launcher.slot_runs[s]->job == NULL)
			add_runid(&live, launcher.slot_runs[s]->runid);
	/* What has become of these is known, and is yet to be written. */
	dlist_foreach(iter, &launcher.skips)
		add_runid(&live, dlist_container(Skip, node, iter.cur)->runid);
	dlist_foreach(iter, &launcher.late_endings)
		add_runid(&live, dlist_container(Late, node, iter.cur)->runid);
	harmless.space = 64;
	harmless.runids = palloc(sizeof(int64) * harmless.space);
	clockwork_run_log_visit_begun(range, add_if_plain, &harmless);
	closed = clockwork_run_log_close_orphans(live.runids, live.count, range, asked_orphans_up_to,
											 harmless.runids, harmless.count);
	clockwork_run_request_note_end(0);
	clockwork_extension_leave(&section);
	if (closed > 0)
		ereport(LOG,
				(errmsg("pg_clockwork closed " UINT64_FORMAT " run records left open by a former launcher",
						closed)));
}

void
clockwork_job_sync_close_orphans(void)
{
	ExtensionObjects objects;

	if (orphans.up_to == 0 || !clockwork_run_is_time(close_orphans_at))
		return;
	close_orphans_at = clockwork_run_next_try(0);	/* should it fail */
	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
		close_orphans(&objects, orphans);
	clockwork_session_commit();
	orphans.up_to = 0;
	clockwork_after_look_again();
	rebuild_at = launcher.now.monotonic;
}

void
clockwork_job_sync_look_back(void)
{
	ExtensionObjects objects;
	RunRange	range = {0, 0};
	bool		has_open = false;

	if (unseen_up_to == 0 || orphans.up_to != 0 || !clockwork_run_is_time(look_back_at))
		return;
	look_back_at = clockwork_run_next_try(0);	/* should it fail */
	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
	{
		ExtensionSection section;

		clockwork_extension_enter(&section, objects.owner);
		range = clockwork_run_log_look_back(unseen_up_to, RECORDS_PER_LOOK, &has_open);
		clockwork_extension_leave(&section);
		if (has_open)
		{
			int			count;
			OpenRecord *records = find_open_records(&objects, range, &count);

			take_up_records(&objects, records, count);
			close_orphans(&objects, range);
		}
	}
	clockwork_session_commit();
	unseen_up_to = range.after;
	look_back_at = launcher.now.monotonic + LOOK_PAUSE_MS * 1000L;
	(void) clockwork_run_is_time(look_back_at);
	if (has_open || unseen_up_to == 0)
		clockwork_after_look_again();
}

/* So many records at most tell how often a job failed in a row. */
#define PAST_RUNS_MAX 1000

static void
rebuild_job(Job *job, void *arg)
{
	const PolicyRules *rules = job->definition.rules;
	ExtensionSection section;
	PastRun    *past;
	int			count;

	if (!job->is_unknown)
		return;
	clockwork_extension_enter(&section, ((const ExtensionObjects *) arg)->owner);
	past = clockwork_run_log_past(job->jobid, job->definition.active_since,
								  Min(PAST_RUNS_MAX, 1 + rules->pause_after * Min(rules->max_attempts, 10)),
								  &count);
	clockwork_extension_leave(&section);
	clockwork_run_policy_rebuild(job, past, count);
}

void
clockwork_job_sync_rebuild(void)
{
	ExtensionObjects objects;

	if (rebuild_at == 0 || orphans.up_to != 0 || unseen_up_to != 0 || !clockwork_run_is_time(rebuild_at))
		return;
	rebuild_at = clockwork_run_next_try(0); /* should it fail */
	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
		clockwork_job_list_visit(rebuild_job, &objects);
	clockwork_session_commit();
	rebuild_at = 0;
}

/*
 * Runs in slots belong to the jobs just loaded.  A run that has ended may
 * stand beside one that goes on, if its process lingers: then only the latter
 * is under way.
 */
static void
reunite_slots(void)
{
	for (int ended = 0; ended <= 1; ended++)
		for (int i = 0; i < launcher.panel->nslots; i++)
		{
			Run		   *run = launcher.slot_runs[i];
			Job		   *job;

			if (run == NULL || run->job || run->ended ||
				(slot_state(clockwork_shmem_slot(i)) == SLOT_ENDED) != ended)
				continue;
			job = clockwork_job_list_find(run->jobid);
			if (job && (!ended || dlist_is_empty(&job->under_way)))
			{
				run->job = job;
				clockwork_run_put_under_way(run);
				clockwork_run_policy_adopted(run);
			}
		}
}

/*
 * Another cron.job than before, or none: what is known belongs to tables that
 * are gone.  Runs that go on are left alone, and leave no record.
 */
static void
forget_everything(void)
{
	dlist_mutable_iter iter;

	orphans.up_to = 0;
	unseen_up_to = 0;
	launcher.is_paused = false;
	clockwork_job_list_begin_load();
	clockwork_job_list_sweep(drop_job);
	dlist_foreach_modify(iter, &launcher.skips)
		clockwork_run_free_skip(dlist_container(Skip, node, iter.cur));
	dlist_foreach_modify(iter, &launcher.late_endings)
		clockwork_run_free_late(dlist_container(Late, node, iter.cur));
	dlist_foreach_modify(iter, &launcher.withdrawals)
		clockwork_run_free_withdrawal(dlist_container(Withdrawal, node, iter.cur));
	dlist_foreach_modify(iter, &launcher.retirees)
		clockwork_run_free_retiree(dlist_container(Retiree, node, iter.cur));
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		if (launcher.slot_runs[i] == NULL)
			continue;
		launcher.slot_runs[i]->runid = 0;
		launcher.slot_runs[i]->jobid = 0;
		clockwork_shmem_slot(i)->runid = 0;
		clockwork_shmem_slot(i)->jobid = 0;
	}
}

/* Records from the future that an interval waits for; beyond, it takes other instants. */
#define MOST_WAIT_USEC (10 * USECS_PER_SEC)

/*
 * A crash may have come between the records of due times that belong together:
 * those of one instant, more than a transaction holds, or a run that waits for
 * a slot and is not yet shown.  So far before the newest record, what has none
 * counts as missed.  No due time stays without a record for longer, and those
 * of one job are not closer (clockwork_run_may_wait_unseen).
 */
#define UNSURE_USEC (SHOW_IN_LINE_MS * INT64CONST(1000) + USECS_PER_SEC)
#define UNSURE_TRIMMED_USEC USECS_PER_SEC

/* The year 2000: each job counts from when it was made, which is later unless the clock is wrong. */
#define BEFORE_ALL_JOBS ((TimestampTz) 0)

/*
 * The first load of this process.  If no launcher of this server has got this
 * far, what fell due since the newest record was missed.  Where there has never
 * been a record, that is all that fell due since the jobs were made.
 */
static void
prepare_first_load(const ExtensionObjects *objects)
{
	ExtensionSection section;
	TimestampTz newest;
	bool		is_first;

	if (launcher.panel->recovered || has_synced)
		return;
	clockwork_extension_enter(&section, objects->owner);
	newest = clockwork_run_log_newest_due_time();
	is_first = newest == 0 && !clockwork_run_log_was_used();
	clockwork_extension_leave(&section);
	if (launcher.missed_until == DT_NOBEGIN)
		launcher.missed_until = launcher.now.wall;
	if (newest > launcher.now.wall + MOST_WAIT_USEC)
	{
		/* The clock was set back while nobody looked: any offset but the last ones. */
		launcher.panel->set_back = 1 + (uint32) (launcher.now.wall % 10000);
		clockwork_job_list_set_interval_offset(launcher.panel->set_back);
	}
	if (newest > launcher.now.wall)
		load_from = launcher.now.wall;
	else if (newest != 0)
	{
		load_from = newest - UNSURE_USEC;
		load_trimmed_from = newest - UNSURE_TRIMMED_USEC;
	}
	else if (is_first && cron_log_run)
		load_from = Min(BEFORE_ALL_JOBS, launcher.now.wall);
	if (resumed_at != 0)
		load_from = Max(load_from, resumed_at);
}

/* Enough, but for a server that was busy when it stopped; and never more. */
#define FEW_RECORDS 200
#define MANY_RECORDS 12800

/* How many of them are of due times that are to be looked at once more? */
static int
count_young(const Recorded *recorded, int count)
{
	int			young = 0;

	for (int i = 0; i < count; i++)
		if (recorded[i].due_time > load_from)
			young++;
	return young;
}

/*
 * After it, the same stretch once more: due times that have their record are over.
 * One that is overlooked here is found when its record cannot be inserted.
 */
static void
pass_over_recorded(const ExtensionObjects *objects)
{
	ExtensionSection section;
	Recorded   *recorded;
	int			most = FEW_RECORDS;
	int			count;

	if (launcher.panel->recovered || has_synced)
		return;
	clockwork_extension_enter(&section, objects->owner);
	recorded = clockwork_run_log_newest_recorded(most, &count);
	while (count_young(recorded, count) > most / 2 && most < MANY_RECORDS)
	{
		most *= 4;
		recorded = clockwork_run_log_newest_recorded(most, &count);
	}
	clockwork_extension_leave(&section);
	for (int i = 0; i < count && recorded[i].due_time <= launcher.now.wall; i++)
	{
		Job		   *job = clockwork_job_list_find(recorded[i].jobid);

		if (job && job->due.place != 0 && job->due_time <= recorded[i].due_time)
			clockwork_job_list_advance(job, recorded[i].due_time);
	}
}

static void
load(const ExtensionObjects *objects)
{
	if (!is_loaded)
		prepare_first_load(objects);
	load_all_jobs(objects);
	if (!is_loaded)
		pass_over_recorded(objects);
	reunite_slots();
	if (!is_loaded)
		recover_records(objects);
}

/* The first load is committed: jobs that run at the server's start are due. */
static void
finish_first_load(void)
{
	is_loaded = true;
	if (!launcher.panel->recovered)
		clockwork_job_list_visit(start_reboot_job, NULL);
	launcher.panel->recovered = true;
}

void
clockwork_job_sync(void)
{
	int64	   *changes = MemoryContextAlloc(launcher.pass_context, sizeof(int64) * CLOCKWORK_MAX_CHANGES);
	TimestampTz changed_at;
	int			count = clockwork_shmem_take_changes(changes, &changed_at);
	ExtensionObjects objects;
	bool		full;

	launcher.pause_unread |= clockwork_run_request_take_pause();
	if (count == 0 && !launcher.must_load && !launcher.pause_unread)
		return;

	if (changed_at != 0 && (news_since == 0 || changed_at < news_since))
		news_since = changed_at;
	full = launcher.must_load || count < 0 || !is_loaded;
	clockwork_session_begin();

	/*
	 * Cleared before anything is read: what is invalidated from here on is
	 * loaded again.  An error sets it again too.
	 */
	launcher.must_load = false;
	if (!clockwork_extension_find(&objects) ||
		(OidIsValid(launcher.job_table) && objects.job != launcher.job_table))
	{
		forget_everything();
		is_loaded = false;
		full = true;
	}
	launcher.job_table = objects.job;
	launcher.panel->job_table = objects.job;
	if (OidIsValid(launcher.job_table) && (full || launcher.pause_unread))
		load_pause(&objects);
	if (OidIsValid(launcher.job_table) && full)
		load(&objects);
	else if (OidIsValid(launcher.job_table) && count > 0)
		load_changed_jobs(&objects, changes, count);
	clockwork_session_commit();
	launcher.pause_unread = false;

	if (OidIsValid(launcher.job_table) && !is_loaded)
		finish_first_load();
	clockwork_run_free_claimed();
	news_since = 0;
	has_synced = true;
}

void
clockwork_job_sync_requests(void)
{
	ExtensionObjects objects;

	take_requests();
	if ((nrequests == 0 && requests_from == 0) || !is_loaded || !clockwork_run_is_time(requests_at))
		return;
	requests_at = clockwork_run_next_try(0);	/* should it fail */
	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
		load_requests(&objects);
	clockwork_session_commit();
	nrequests = 0;
	requests_from = 0;
	requests_at = 0;
}

static void
forget_extension(Datum arg, Oid relation)
{
	/*
	 * May be called anywhere: no catalog access here.  Without the extension,
	 * any relation may be the new cron.job.
	 */
	if (!OidIsValid(relation) || !OidIsValid(launcher.job_table) || relation == launcher.job_table)
		launcher.must_load = true;
}

bool
clockwork_job_sync_is_loaded(void)
{
	return is_loaded;
}

void
clockwork_job_sync_init(void)
{
	ControlPanel *panel = launcher.panel;

	clockwork_job_list_init();
	clockwork_job_list_set_interval_offset(panel->set_back);
	clockwork_after_init();
	started_at = launcher.now.wall;
	launcher.job_table = panel->job_table;
	launcher.must_load = true;

	/* What fell due while there was no launcher counts, if the server was up. */
	load_from = panel->cursor != 0 ? Min(panel->cursor, started_at) : started_at;
	CacheRegisterRelcacheCallback(forget_extension, (Datum) 0);
}
