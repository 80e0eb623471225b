/*
 * The runs as the launcher knows them.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "guc.h"
#include "run_list.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long a worker may take from its request to its attachment, if we
 * cannot ask the postmaster because a former launcher requested it. */
#define ADOPTED_START_MS 10000

Launcher	launcher;

static int64 run_sequence = 0;	/* counts runs, for those of equal rank */
static HTAB *shares = NULL;		/* RoleShares; they stay until the launcher ends */

static void *
resize_heap(void *old, size_t bytes)
{
	return old ? repalloc_huge(old, bytes) : MemoryContextAllocHuge(launcher.run_context, bytes);
}

PolicyLimits
clockwork_run_limits(void)
{
	PolicyLimits limits;

	limits.max_running = launcher.panel->nslots;
	limits.max_running_per_role = cron_max_running_jobs_per_role;
	limits.grace = (int64) cron_timeout_grace * 1000;
	limits.max_retry_delay = (int64) cron_max_retry_delay * USECS_PER_SEC;
	return limits;
}

int64
clockwork_run_deadline(const Job *job, TimestampTz start)
{
	int64		deadline = clockwork_policy_deadline(job->definition.rules, start);

	return deadline == POLICY_NEVER ? POLICY_NEVER :
		launcher.now.monotonic + (deadline - launcher.now.wall);
}

bool
clockwork_run_may_wait_unseen(const Job *job, TimestampTz due_time)
{
	return job->schedule.kind != SCHEDULE_AFTER && job->schedule.kind != SCHEDULE_REBOOT &&
		job->definition.history == HISTORY_ALL &&
		job->due_time > due_time + 2 * SHOW_IN_LINE_MS * INT64CONST(1000);
}

/* When the due time is so old: monotonic.  One that comes to us late is that at once. */
static int64
time_of_age(TimestampTz due_time, int64 age_ms)
{
	return launcher.now.monotonic + Max(Min(due_time - launcher.now.wall, 0) + age_ms * 1000, 0);
}

Run *
clockwork_run_create(Job *job, TimestampTz due_time, int32 attempt, const char *trigger)
{
	Run		   *run = MemoryContextAllocZero(launcher.run_context, sizeof(Run));

	run->job = job;
	run->jobid = job->jobid;
	run->due_time = due_time;
	run->attempt = attempt;
	run->trigger = trigger;
	run->slot = -1;
	run->sequence = run_sequence++;

	run->show_at = time_of_age(due_time, SHOW_QUEUED_MS);
	run->show_in_line_at = clockwork_run_may_wait_unseen(job, due_time) ?
		time_of_age(due_time, SHOW_IN_LINE_MS) : run->show_at;
	run->start = job->schedule.kind == SCHEDULE_REBOOT || job->schedule.kind == SCHEDULE_AFTER ?
		due_time : clockwork_job_start_of(job, due_time);

	/* What follows from other jobs is late when they are: see run_policy_admit. */
	run->deadline = attempt > 1 || job->schedule.kind == SCHEDULE_AFTER ?
		POLICY_NEVER : clockwork_run_deadline(job, run->start);
	run->stopped_at = POLICY_NEVER;
	run->terminated_at = POLICY_NEVER;
	clockwork_run_set_alarm(run, run->deadline);
	return run;
}

void
clockwork_run_ask(Run *run)
{
	run->asked = true;
	run->in_order = strcmp(run->trigger, "catch_up") == 0;
	run->start = run->in_order ? launcher.now.wall : run->due_time;
	run->deadline = run->in_order ? POLICY_NEVER : clockwork_run_deadline(run->job, run->start);
	clockwork_run_set_alarm(run, run->deadline);
}

static void
put(Run *run, dlist_head *list, RunPlace place)
{
	clockwork_run_take_out(run);
	dlist_push_tail(list, &run->of_job);
	run->place = place;
}

void
clockwork_run_put_under_way(Run *run)
{
	put(run, &run->job->under_way, RUN_UNDER_WAY);
}

void
clockwork_run_put_waiting(Run *run)
{
	dlist_iter	iter;

	put(run, &run->job->waiting, RUN_WAITING);

	/* A long backfill must not keep the schedule waiting. */
	dlist_foreach(iter, &run->job->waiting)
		if (!run->in_order && run_of_job(iter.cur)->in_order)
		{
			dlist_delete(&run->of_job);
			dlist_insert_before(iter.cur, &run->of_job);
			return;
		}
}

void
clockwork_run_put_resting(Run *run)
{
	put(run, &run->job->resting, RUN_RESTING);
}

/* May this run be under way beside those of its job that are? */
static bool
has_room(const Run *run)
{
	PolicyLimits limits = clockwork_run_limits();
	PolicyRules rules = *run->job->definition.rules;
	dlist_iter	iter;
	int			room;

	if (run->order == RUN_BESIDE_OTHERS)
		rules.on_overlap = POLICY_PARALLEL;
	room = run->order == RUN_ALONE ? 1 : clockwork_policy_width(&rules, &limits);
	dlist_foreach(iter, &run->job->under_way)
		room--;
	return room > 0;
}

void
clockwork_run_line_up(Run *run, bool is_urgent)
{
	Job		   *job = run->job;

	if (has_room(run) && (is_urgent || dlist_is_empty(&job->waiting)))
	{
		clockwork_run_put_under_way(run);
		clockwork_run_make_ready(run);
		return;
	}
	clockwork_run_put_waiting(run);
	if (is_urgent)
		dlist_move_head(&job->waiting, &run->of_job);
	clockwork_run_must_record(run);
}

void
clockwork_run_put_awaiting(Run *run)
{
	clockwork_run_take_out(run);
	dlist_push_tail(&run->job->awaiting, &run->of_job);
	run->place = RUN_AWAITING;
}

void
clockwork_run_take_out(Run *run)
{
	if (run->place != RUN_APART)
		dlist_delete(&run->of_job);
	run->place = RUN_APART;
}

/* It is neither ready nor parked any more. */
static void
unrank(Run *run)
{
	if (run->is_parked)
	{
		clockwork_due_heap_remove(&run->share->parked, &run->rank);
		run->is_parked = false;
		run->share = NULL;
	}
	else
		clockwork_due_heap_remove(&launcher.ready, &run->rank);
}

void
clockwork_run_destroy(Run *run)
{
	Assert(run->slot < 0);
	clockwork_run_take_out(run);
	unrank(run);
	clockwork_due_heap_remove(&launcher.alarms, &run->alarm);
	if (run->is_unrecorded || run->is_held)
		dlist_delete(&run->unrecorded);
	if (run->handle)
		pfree(run->handle);
	if (run->awaited)
		pfree(run->awaited);
	if (run->must_decide)
		dlist_delete(&run->undecided);
	pfree(run);
}

/* It may start as soon as there is a slot: by priority, then by age. */
void
clockwork_run_make_ready(Run *run)
{
	int64		rank = clockwork_policy_rank(run->job->definition.rules, run->start);

	unrank(run);
	clockwork_run_set_alarm(run, run->deadline);
	clockwork_due_heap_set(&launcher.ready, &run->rank, rank, run->sequence);
}

void
clockwork_run_must_record(Run *run)
{
	bool		shown = run->shown_awaiting ? run->place == RUN_AWAITING : run->runid != 0;

	if (shown || run->is_unrecorded || run->is_unrecordable || !cron_log_run)
		return;
	dlist_push_tail(&launcher.queued_runs, &run->unrecorded);
	run->is_unrecorded = true;
}

void
clockwork_run_must_record_if_it_lasts(Run *run)
{
	int64		show_at = Min(run->show_in_line_at,
							  Max(run->show_at, launcher.handed_on_at + SHOW_QUEUED_MS * 1000L));

	if (run->runid == 0 && cron_log_run && !launcher.is_leaving && !clockwork_run_is_time(show_at))
		return;
	clockwork_run_must_record(run);
}

static bool
share_has_room(const RoleShare *share)
{
	PolicyLimits limits = clockwork_run_limits();

	/* Whoever asks has a free slot: only the role's cap is in question. */
	return clockwork_policy_may_start(&limits, 0, share->running);
}

static RoleShare *
find_share(Oid role)
{
	bool		found;
	RoleShare  *share = hash_search(shares, &role, HASH_ENTER, &found);

	if (!found)
	{
		share->running = 0;
		clockwork_due_heap_init(&share->parked, resize_heap);
	}
	return share;
}

Run *
clockwork_run_take_ready(void)
{
	DueEntry   *first;

	while ((first = clockwork_due_heap_first(&launcher.ready)) != NULL)
	{
		Run		   *run = run_of_rank(first);
		RoleShare  *share = find_share(run->job->definition.owner);

		clockwork_due_heap_remove(&launcher.ready, first);
		run->share = share;
		if (share_has_room(share))
		{
			share->running++;
			return run;
		}
		clockwork_due_heap_set(&share->parked, first, first->key, first->tie);
		run->is_parked = true;
		clockwork_run_must_record(run);
	}
	return NULL;
}

static Run *
find_in(dlist_head *list, TimestampTz due_time)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		if (run_of_job(iter.cur)->due_time == due_time)
			return run_of_job(iter.cur);
	return NULL;
}

Run *
clockwork_run_find(Job *job, TimestampTz due_time)
{
	Run		   *run = find_in(&job->under_way, due_time);

	if (run == NULL)
		run = find_in(&job->waiting, due_time);
	if (run == NULL)
		run = find_in(&job->resting, due_time);
	if (run == NULL)
		run = find_in(&job->awaiting, due_time);
	return run;
}

void
clockwork_run_note_outcome(const Job *job, TimestampTz due_time, AfterOutcome outcome,
						   int64 runid, const char *reason)
{
	Outcome    *noted;

	if (job->known_as == NULL)
		return;					/* nobody waits for it */
	noted = MemoryContextAllocZero(launcher.run_context, sizeof(Outcome));
	noted->jobid = job->jobid;
	noted->due_time = due_time;
	noted->outcome = outcome;
	noted->runid = runid;
	noted->reason = reason;
	dlist_push_tail(&launcher.outcomes, &noted->node);
}

/*
 * Failures that count for pause_after must be found again after a restart: they
 * stay until a success ends the streak.  The last success stays for the same reason.
 */
bool
clockwork_run_trims_on_success(const Job *job)
{
	return job->definition.history == HISTORY_FAILURES || job->definition.rules->pause_after > 0;
}

void
clockwork_run_must_trim(Job *job, TimestampTz due_time, bool succeeded)
{
	if (job->definition.history == HISTORY_ALL)
		return;
	job->trimmed_to = Min(job->trimmed_to, due_time);
	if (job->must_trim || (!succeeded && clockwork_run_trims_on_success(job)))
		return;
	job->must_trim = true;
	dlist_push_tail(&launcher.trims, &job->of_trims);
}

bool
clockwork_run_role_has_room(Oid role)
{
	return share_has_room(find_share(role));
}

void
clockwork_run_count(Run *run)
{
	if (run->share)
		return;
	run->share = find_share(run->job->definition.owner);
	run->share->running++;
}

void
clockwork_run_unpark_all(void)
{
	HASH_SEQ_STATUS status;
	RoleShare  *share;
	DueEntry   *first;

	hash_seq_init(&status, shares);
	while ((share = hash_seq_search(&status)) != NULL)
		while ((first = clockwork_due_heap_first(&share->parked)) != NULL)
			clockwork_run_make_ready(run_of_rank(first));
}

TimestampTz
clockwork_run_earliest_parked(TimestampTz bound)
{
	HASH_SEQ_STATUS status;
	RoleShare  *share;

	hash_seq_init(&status, shares);
	while ((share = hash_seq_search(&status)) != NULL)
		for (size_t i = 1; i <= share->parked.count; i++)
		{
			Run		   *run = run_of_rank(share->parked.entries[i]);

			if (run->runid == 0)
				bound = Min(bound, run->due_time);
		}
	return bound;
}

/* A slot of the role is free: the first of those it held back may have it. */
static void
give_up_share(Run *run)
{
	RoleShare  *share = run->share;
	DueEntry   *first;

	run->share = NULL;
	if (share == NULL)
		return;
	share->running--;
	first = clockwork_due_heap_first(&share->parked);
	if (first)
		clockwork_run_make_ready(run_of_rank(first));
}

void
clockwork_run_set_alarm(Run *run, int64 at)
{
	if (at == POLICY_NEVER)
		clockwork_due_heap_remove(&launcher.alarms, &run->alarm);
	else
		clockwork_due_heap_set(&launcher.alarms, &run->alarm, at, run->sequence);
}

/* NULL if there is nothing to record. */
static Skip *
add_skip(const Job *job, TimestampTz due_time, int64 runid, const char *reason, const char *message)
{
	Skip	   *skip;

	if (!cron_log_run && runid == 0)
		return NULL;
	skip = MemoryContextAllocZero(launcher.run_context, sizeof(Skip));
	skip->status = "skipped";
	skip->runid = runid;
	skip->jobid = job->jobid;
	skip->due_time = due_time;
	skip->reason = reason;
	skip->message = MemoryContextStrdup(launcher.run_context, message);
	skip->database = MemoryContextStrdup(launcher.run_context, job->definition.database);
	skip->username = MemoryContextStrdup(launcher.run_context, job->definition.username);
	skip->attempt = 1;
	skip->trigger = job->schedule.kind == SCHEDULE_AFTER ? "after" : "schedule";

	/*
	 * What follows from other jobs is written before what it follows from: a
	 * crash in between must not leave the cause alone.
	 */
	if (job->schedule.kind == SCHEDULE_AFTER)
		dlist_push_head(&launcher.skips, &skip->node);
	else
		dlist_push_tail(&launcher.skips, &skip->node);
	return skip;
}

/* The due time gets no run: say why.  Takes over the record if there is one. */
void
clockwork_run_skip_due_time(const Job *job, TimestampTz due_time, int64 runid, const char *reason, const char *message)
{
	clockwork_run_note_outcome(job, due_time, AFTER_SKIPPED, runid, reason);
	(void) add_skip(job, due_time, runid, reason, message);
}

void
clockwork_run_skip(Run *run, const char *reason, const char *message)
{
	/* Of a later attempt that does not come, the first one's end is what is left. */
	clockwork_run_note_outcome(run->job, run->due_time,
							   run->attempt > 1 ? AFTER_FAILED : AFTER_SKIPPED, run->runid, reason);

	/* A later attempt that nobody has seen leaves no record: the first one's says it all. */
	if (run->attempt == 1 || run->runid != 0)
	{
		Skip	   *skip = add_skip(run->job, run->due_time, run->runid, reason, message);

		if (skip)
		{
			skip->attempt = run->attempt;
			skip->trigger = run->trigger;
		}
	}
	clockwork_run_destroy(run);
}

/* False if the run was not begun ahead, or has started. */
static bool
withdraw(Run *run)
{
	if (!run->is_ahead || run->slot < 0 || run->job == NULL || !clockwork_run_take_back(run))
		return false;
	clockwork_run_forget_ahead(run);
	return true;
}

/* The runs of a job that have no worker yet will not start. */
void
clockwork_run_abandon_all(Job *job, bool all, const char *reason, const char *message)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->awaiting)
		clockwork_run_skip(run_of_job(iter.cur), reason, message);
	dlist_foreach_modify(iter, &job->resting)
		clockwork_run_skip(run_of_job(iter.cur), reason, message);
	dlist_foreach_modify(iter, &job->waiting)
		if (all || !run_of_job(iter.cur)->asked)
			clockwork_run_skip(run_of_job(iter.cur), reason, message);
	dlist_foreach_modify(iter, &job->under_way)
	{
		Run		   *run = run_of_job(iter.cur);

		if (!all && run->asked)
			continue;

		if (run->is_ahead && run->start > launcher.now.wall && withdraw(run))
			continue;
		if (run->slot < 0 || clockwork_run_take_back(run))
			clockwork_run_skip(run, reason, message);
	}
}

void
clockwork_run_promote_waiting(Job *job)
{
	while (!dlist_is_empty(&job->waiting))
	{
		Run		   *next = run_of_job(dlist_head_node(&job->waiting));

		if (!has_room(next))
			return;
		clockwork_run_put_under_way(next);
		clockwork_run_make_ready(next);
	}
}

static void end_without_worker(RunSlot *slot, const char *message);

/* ---- runs by their number ---- */

static Run *
find_in_list(dlist_head *list, int64 runid)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
		if (run_of_job(iter.cur)->runid == runid)
			return run_of_job(iter.cur);
	return NULL;
}

typedef struct Search
{
	int64		runid;
	Run		   *found;
} Search;

static void
search_job(Job *job, void *arg)
{
	Search	   *search = arg;

	if (search->found == NULL)
		search->found = find_in_list(&job->under_way, search->runid);
	if (search->found == NULL)
		search->found = find_in_list(&job->waiting, search->runid);
	if (search->found == NULL)
		search->found = find_in_list(&job->awaiting, search->runid);
}

Run *
clockwork_run_find_by_id(int64 runid)
{
	Search		search = {runid, NULL};

	if (runid == 0)
		return NULL;
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];

		if (run && !run->ended && run->runid == runid)
			return run;
	}
	clockwork_job_list_visit(search_job, &search);
	return search.found;
}

/* ---- ending runs early ---- */

void
clockwork_run_cancel_unstarted(Run *run, const char *by)
{
	Job		   *job = run->job;
	Skip	   *skip = add_skip(job, run->due_time, run->runid, "canceled", CANCEL_MESSAGE);
	MemoryContext caller;

	clockwork_run_note_outcome(job, run->due_time, AFTER_FAILED, run->runid, NULL);
	if (skip)
	{
		caller = MemoryContextSwitchTo(launcher.run_context);
		skip->status = "failed";
		skip->attempt = run->attempt;
		skip->trigger = run->trigger;
		skip->detail = psprintf("Canceled by role \"%s\" before it began.", by);
		MemoryContextSwitchTo(caller);
	}
	clockwork_run_destroy(run);
	clockwork_run_promote_waiting(job);
}

bool
clockwork_run_end_unattached(Run *run, const char *message)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	if (!slot_swap_state(slot, SLOT_LAUNCHED, SLOT_CLAIMED))
		return false;
	if (run->handle)
		TerminateBackgroundWorker(run->handle);
	end_without_worker(slot, message);
	return true;
}

/* Nobody's run is in the slot any more; a worker that waits there goes on waiting. */
static void
free_slot(RunSlot *slot)
{
	clockwork_shmem_free_text(&slot->command);
	clockwork_shmem_free_text(&slot->settings);
	clockwork_shmem_free_text(&slot->outcome.message);
	clockwork_shmem_free_text(&slot->outcome.detail);
	clockwork_shmem_free_text(&slot->outcome.hint);
	clockwork_shmem_free_text(&slot->outcome.context);
	slot_set_state(slot, slot->worker_pid != 0 ? SLOT_IDLE : SLOT_FREE);
}

void
clockwork_run_return_ready(Run *run)
{
	run->share->running--;
	run->share = NULL;
	clockwork_run_make_ready(run);
}

/* Give the slot back; the run is forgotten. */
void
clockwork_run_release_slot(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	if (slot->worker_pid != 0)
	{
		launcher.idle_workers[run->slot].handle = run->handle;

		/* Nobody tells us of the end of a worker that is not ours. */
		if (run->handle == NULL)
			clockwork_shmem_dismiss(slot);
		run->handle = NULL;
	}
	free_slot(slot);
	launcher.slot_runs[run->slot] = NULL;
	run->slot = -1;
	give_up_share(run);
}

bool
clockwork_run_take_back(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	/* A process that is on its way cannot be told that it is not needed. */
	if (slot_state(slot) != SLOT_BEGUN &&
		(slot->worker_pid == 0 || !slot_swap_state(slot, SLOT_LAUNCHED, SLOT_BEGUN)))
		return false;
	clockwork_run_release_slot(run);
	return true;
}

/* ---- runs that were begun ahead ---- */

void
clockwork_run_forget_ahead(Run *run)
{
	if (run->runid != 0)
	{
		Withdrawal *withdrawal = MemoryContextAllocZero(launcher.run_context, sizeof(Withdrawal));

		withdrawal->runid = run->runid;
		withdrawal->jobid = run->jobid;
		withdrawal->due_time = run->due_time;
		dlist_push_tail(&launcher.withdrawals, &withdrawal->node);
	}
	clockwork_run_destroy(run);
}

void
clockwork_run_withdraw_all(Job *job)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];
		Job		   *owner = run ? run->job : NULL;
		TimestampTz due;

		if (owner == NULL || (job && owner != job))
			continue;
		due = run->due_time;
		if (withdraw(run))
			clockwork_job_list_make_due(owner, due);
	}
}

int64
clockwork_run_take_withdrawn(const Job *job, TimestampTz due_time)
{
	dlist_iter	iter;

	dlist_foreach(iter, &launcher.withdrawals)
	{
		Withdrawal *withdrawal = dlist_container(Withdrawal, node, iter.cur);
		int64		runid = withdrawal->runid;

		if (withdrawal->jobid != job->jobid || withdrawal->due_time != due_time)
			continue;
		clockwork_run_free_withdrawal(withdrawal);
		return runid;
	}
	return 0;
}

/* ---- slots ---- */

/* Does a worker wait in the slot that would still take a run? */
static bool
is_waiting(int slot_index)
{
	RunSlot    *slot = clockwork_shmem_slot(slot_index);

	return launcher.slot_runs[slot_index] == NULL && slot_state(slot) == SLOT_IDLE &&
		!slot->leaves && !slot->dismissed;
}

static bool
is_free(int slot_index)
{
	return launcher.slot_runs[slot_index] == NULL &&
		slot_state(clockwork_shmem_slot(slot_index)) == SLOT_FREE;
}

int
clockwork_run_count_free_slots(void)
{
	int			count = 0;

	for (int i = 0; i < launcher.panel->nslots; i++)
		if (is_free(i) || is_waiting(i))
			count++;
	return count;
}

bool
clockwork_run_has_free_slot(void)
{
	return clockwork_run_count_free_slots() > 0;
}

int
clockwork_run_find_waiting(const Job *job, bool spare)
{
	const JobDefinition *definition = &job->definition;
	int			found = -1;

	/* The one that is wanted first: one wanted later is somebody else's. */
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		const IdleWorker *idle = &launcher.idle_workers[i];

		if (is_waiting(i) && (idle->is_new || !definition->fresh_session) &&
			!(spare && idle->kept_for > launcher.now.monotonic) && idle->role == definition->owner &&
			strcmp(idle->database_name, definition->database) == 0 &&
			(found < 0 || idle->kept_for < launcher.idle_workers[found].kept_for))
			found = i;
	}
	return found;
}

int
clockwork_run_find_free_slot(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
		if (is_free(i))
			return i;
	return -1;
}

int
clockwork_run_choose_slot(const Run *run)
{
	int			waiting = clockwork_run_find_waiting(run->job, false);

	return waiting >= 0 ? waiting : clockwork_run_find_free_slot();
}

bool
clockwork_run_request_worker(int slot_index, BackgroundWorkerHandle **handle)
{
	uint32		generation = clockwork_shmem_slot(slot_index)->generation;
	BackgroundWorker worker;
	MemoryContext caller = MemoryContextSwitchTo(launcher.run_context);
	bool		granted;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int64GetDatum((int64) (((uint64) slot_index << 32) | generation));
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pg_clockwork");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "clockwork_worker_main");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_clockwork worker");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_clockwork worker");
	granted = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(caller);
	return granted;
}

void
clockwork_run_claim_slot(Run *run, int slot_index)
{
	RunSlot    *slot = clockwork_shmem_slot(slot_index);
	IdleWorker *idle = &launcher.idle_workers[slot_index];

	slot->runid = 0;
	slot_set_state(slot, SLOT_CLAIMED);
	launcher.slot_runs[slot_index] = run;
	run->slot = slot_index;
	run->shown_running = false;
	run->ended = false;
	run->handle = idle->handle;
	idle->handle = NULL;
	idle->is_new = false;
	idle->requested_at = 0;
	idle->kept_for = 0;
	idle->role = run->job->definition.owner;
	strlcpy(idle->database_name, run->job->definition.database, NAMEDATALEN);
}

void
clockwork_run_dismiss_idle(int wanted)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);

		if (launcher.slot_runs[i] == NULL && slot_state(slot) == SLOT_IDLE && !is_waiting(i))
			wanted--;
	}
	for (int i = 0; i < launcher.panel->nslots && wanted > 0; i++)
		if (is_waiting(i))
		{
			clockwork_shmem_dismiss(clockwork_shmem_slot(i));
			wanted--;
		}
}

bool
clockwork_run_is_time(int64 at)
{
	if (at <= launcher.now.monotonic)
		return true;
	if (launcher.retry_at == 0 || at < launcher.retry_at)
		launcher.retry_at = at;
	return false;
}

/* The pause grows with each failure, up to four times RETRY_MS. */
int64
clockwork_run_next_try(int tries)
{
	int64		at = launcher.now.monotonic + ((int64) RETRY_MS << Min(tries, 2)) * 1000;

	(void) clockwork_run_is_time(at);
	return at;
}

void
clockwork_run_free_skip(Skip *skip)
{
	dlist_delete(&skip->node);
	pfree(skip->message);
	if (skip->detail)
		pfree(skip->detail);
	pfree(skip->database);
	pfree(skip->username);
	pfree(skip);
}

static void
free_text(const char *text)
{
	if (text)
		pfree(unconstify(char *, text));
}

void
clockwork_run_free_late(Late *late)
{
	dlist_delete(&late->node);
	free_text(late->identity.command);
	free_text(late->identity.database);
	free_text(late->identity.username);
	free_text(late->ending.message);
	free_text(late->ending.detail);
	free_text(late->ending.hint);
	free_text(late->ending.context);
	free_text(late->ending.notify);
	pfree(late);
}

void
clockwork_run_free_retiree(Retiree *retiree)
{
	dlist_delete(&retiree->node);
	if (retiree->pause_reason)
		pfree(retiree->pause_reason);
	pfree(retiree);
}

void
clockwork_run_free_withdrawal(Withdrawal *withdrawal)
{
	dlist_delete(&withdrawal->node);
	pfree(withdrawal);
}

/* ---- what the slots say ---- */

/* Has a worker, which had attached to its slot, gone? */
static bool
worker_gone(BackgroundWorkerHandle *handle, const RunSlot *slot)
{
	pid_t		pid;

	if (handle)
		return GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED;
	return kill(slot->worker_pid, 0) != 0 && errno == ESRCH;
}

/* Has the process of this run gone? */
static bool
process_gone(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	if (run->handle || slot->worker_pid != 0)
		return worker_gone(run->handle, slot);
	return launcher.now.monotonic - run->launched_at > ADOPTED_START_MS * 1000L;
}

/* The process in the run's slot has gone. */
static void
forget_worker(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	slot->worker_pid = 0;
	slot->latch = NULL;
	if (run->handle)
		pfree(run->handle);
	run->handle = NULL;
}

/* It has ended, and its worker has gone or waits for another run. */
static bool
is_over(Run *run)
{
	return run->ended && (clockwork_shmem_slot(run->slot)->stays || process_gone(run));
}

/* Has a process gone that was to wait in the slot, before it did? */
static bool
warming_worker_gone(int slot_index)
{
	IdleWorker *idle = &launcher.idle_workers[slot_index];
	RunSlot    *slot = clockwork_shmem_slot(slot_index);

	if (idle->handle || slot->worker_pid != 0)
		return worker_gone(idle->handle, slot);
	return launcher.now.monotonic - idle->requested_at > ADOPTED_START_MS * 1000L;
}

static bool
idle_worker_gone(int slot_index)
{
	RunSlot    *slot = clockwork_shmem_slot(slot_index);

	switch (slot_state(slot))
	{
		case SLOT_IDLE:
			return worker_gone(launcher.idle_workers[slot_index].handle, slot);
		case SLOT_WARMING:
		case SLOT_CONNECTING:
			return warming_worker_gone(slot_index);
		default:
			return false;
	}
}

bool
clockwork_run_must_reap(int slot_index)
{
	Run		   *run = launcher.slot_runs[slot_index];

	return run ? is_over(run) : idle_worker_gone(slot_index);
}

/* The run ended, but no worker could say so. */
static void
end_without_worker(RunSlot *slot, const char *message)
{
	memset(&slot->outcome, 0, sizeof(slot->outcome));
	slot->outcome.elevel = ERROR;
	slot->outcome.sqlerrcode = ERRCODE_INTERNAL_ERROR;
	slot->outcome.tag = CMDTAG_UNKNOWN;
	slot->outcome.encoding = GetDatabaseEncoding();
	strlcpy(slot->outcome.note, message, sizeof(slot->outcome.note));
	slot->end_time = launcher.now.wall;
	slot_set_state(slot, SLOT_ENDED);
}

void
clockwork_run_log_start_of(Run *run)
{
	if (!run->must_log_start)
		return;
	run->must_log_start = false;
	ereport(LOG, (errmsg("cron job " INT64_FORMAT " starting: %s", run->jobid,
						 clockwork_shmem_text(clockwork_shmem_slot(run->slot)->command))));
}

static void
reap_run(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	SlotState	state = slot_state(slot);

	if (state == SLOT_RUNNING)
		clockwork_run_log_start_of(run);

	/* A worker that stayed for this run has left instead: there are others. */
	if ((state == SLOT_LAUNCHED || state == SLOT_BEGUN) && slot->worker_pid != 0 && process_gone(run))
	{
		if (state == SLOT_BEGUN || slot_swap_state(slot, SLOT_LAUNCHED, SLOT_BEGUN))
			forget_worker(run);
		return;
	}
	if (state == SLOT_LAUNCHED && process_gone(run) &&
		slot_swap_state(slot, SLOT_LAUNCHED, SLOT_CLAIMED))
		end_without_worker(slot, "could not start background process; "
						   "more details may be available in the server log");
	else if (state == SLOT_RUNNING && process_gone(run) &&
			 slot_state(slot) == SLOT_RUNNING)
		end_without_worker(slot, "the worker is gone without having reported an outcome");

	/* A slot counts until its process is gone: the cap is never exceeded. */
	if (is_over(run))
	{
		if (process_gone(run))
			forget_worker(run);
		clockwork_run_release_slot(run);
		clockwork_run_destroy(run);
	}
}

static void
reap_idle(int slot_index)
{
	RunSlot    *slot = clockwork_shmem_slot(slot_index);
	IdleWorker *idle = &launcher.idle_workers[slot_index];

	if (!idle_worker_gone(slot_index))
		return;
	if (slot_state(slot) != SLOT_IDLE)
	{
		Job		   *job = clockwork_job_list_find(idle->jobid);

		/* Why it cannot connect will be in the record of its run. */
		if (job)
			job->cannot_warm = true;
	}
	if (idle->handle)
		pfree(idle->handle);
	idle->handle = NULL;
	idle->requested_at = 0;
	idle->kept_for = 0;
	slot->worker_pid = 0;
	slot->latch = NULL;
	slot_set_state(slot, SLOT_FREE);
}

void
clockwork_run_reap(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		if (launcher.slot_runs[i])
			reap_run(launcher.slot_runs[i]);
		else
			reap_idle(i);
	}
}

/* Take over the slots that a former launcher left in use. */
static void
adopt_slots(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);
		SlotState	state = slot_state(slot);
		Run		   *run;

		if (state == SLOT_FREE)
			continue;

		/* Nobody tells us of the end of a worker that is not ours. */
		if (slot->worker_pid != 0)
			clockwork_shmem_dismiss(slot);
		if (state == SLOT_WARMING && slot_swap_state(slot, SLOT_WARMING, SLOT_FREE))
			continue;			/* whoever comes for it finds it gone */
		if (state == SLOT_IDLE || state == SLOT_CONNECTING || state == SLOT_WARMING)
		{
			launcher.idle_workers[i].requested_at = launcher.now.monotonic;
			slot->dismissed = true;
			continue;
		}
		if (state == SLOT_CLAIMED)
		{
			/*
			 * Whether its record was committed shows when records are
			 * recovered.  Until then the slot remembers: we may die, too.
			 */
			if (slot->runid != 0)
				launcher.claimed[launcher.nclaimed++] = slot->runid;
			continue;
		}
		run = MemoryContextAllocZero(launcher.run_context, sizeof(Run));
		run->runid = slot->runid;
		run->jobid = slot->jobid;
		run->due_time = slot->due_time;
		run->attempt = slot->attempt;
		run->start = slot->due_time;
		run->trigger = clockwork_run_log_trigger(slot->trigger);
		run->asked = strcmp(run->trigger, "manual") == 0;
		run->slot = i;
		run->launched_at = launcher.now.monotonic;
		if (slot->start_time != 0)
			run->launched_at -= Max(launcher.now.wall - slot->start_time, 0);
		run->stopped_at = POLICY_NEVER;
		run->terminated_at = POLICY_NEVER;
		if (slot->cancel.is_asked)
		{
			run->stop_reason = "canceled";
			run->stopped_at = launcher.now.monotonic;
			run->grace = Max(slot->cancel.terminate_at - launcher.now.monotonic, 0);
			clockwork_run_set_alarm(run, launcher.now.monotonic);
		}
		launcher.slot_runs[i] = run;
	}
}

void
clockwork_run_free_claimed(void)
{
	if (launcher.nclaimed < 0)
		return;
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);

		if (launcher.slot_runs[i] == NULL && slot_state(slot) == SLOT_CLAIMED)
			free_slot(slot);
	}
	launcher.nclaimed = -1;
}

void
clockwork_run_list_init(void)
{
	HASHCTL		control;

	launcher.run_context = AllocSetContextCreate(TopMemoryContext, "pg_clockwork runs",
												 ALLOCSET_DEFAULT_SIZES);
	launcher.slot_runs = MemoryContextAllocZero(launcher.run_context,
												sizeof(Run *) * launcher.panel->nslots);
	launcher.idle_workers = MemoryContextAllocZero(launcher.run_context,
												   sizeof(IdleWorker) * launcher.panel->nslots);
	launcher.claimed = MemoryContextAllocZero(launcher.run_context,
											  sizeof(int64) * launcher.panel->nslots);
	clockwork_due_heap_init(&launcher.ready, resize_heap);
	clockwork_due_heap_init(&launcher.alarms, resize_heap);
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(RoleShare);
	control.hcxt = launcher.run_context;
	shares = hash_create("pg_clockwork role shares", 16, &control,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&launcher.queued_runs);
	dlist_init(&launcher.held_runs);
	dlist_init(&launcher.skips);
	dlist_init(&launcher.late_endings);
	dlist_init(&launcher.retirees);
	dlist_init(&launcher.withdrawals);
	dlist_init(&launcher.trims);
	launcher.settled_from = DT_NOBEGIN;
	launcher.missed_until = DT_NOBEGIN;
	dlist_init(&launcher.outcomes);
	dlist_init(&launcher.undecided);
	launcher.has_backlog = true;	/* a former launcher may have left one */
	adopt_slots();
}
