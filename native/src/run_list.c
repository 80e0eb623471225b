/*
 * The runs as the launcher knows them.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "guc.h"
#include "run_list.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How long a worker may take from its request to its attachment, if we
 * cannot ask the postmaster because a former launcher requested it. */
#define ADOPTED_START_MS 10000

/* A point of priority is worth this much waiting, so that nothing starves. */
#define PRIORITY_USEC (60 * USECS_PER_SEC)

Launcher	launcher;

static int64 run_sequence = 0;	/* counts runs, for those of equal rank */

static void *
resize_heap(void *old, size_t bytes)
{
	return old ? repalloc_huge(old, bytes) : MemoryContextAllocHuge(launcher.run_context, bytes);
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
	return run;
}

void
clockwork_run_put_under_way(Run *run)
{
	clockwork_run_take_out(run);
	dlist_push_tail(&run->job->under_way, &run->of_job);
	run->place = RUN_UNDER_WAY;
}

void
clockwork_run_put_waiting(Run *run)
{
	clockwork_run_take_out(run);
	dlist_push_tail(&run->job->waiting, &run->of_job);
	run->place = RUN_WAITING;
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

void
clockwork_run_destroy(Run *run)
{
	Assert(run->slot < 0);
	clockwork_run_take_out(run);
	clockwork_due_heap_remove(&launcher.ready, &run->rank);
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
	int64		rank = run->due_time - run->job->definition.priority * PRIORITY_USEC;

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

/* The due time gets no run: say why.  Takes over the record if there is one. */
void
clockwork_run_skip_due_time(const Job *job, TimestampTz due_time, int64 runid, const char *reason, const char *message)
{
	Skip	   *skip;

	clockwork_run_note_outcome(job, due_time, AFTER_SKIPPED, runid, reason);
	if (!cron_log_run)
		return;
	skip = MemoryContextAllocZero(launcher.run_context, sizeof(Skip));
	skip->runid = runid;
	skip->jobid = job->jobid;
	skip->due_time = due_time;
	skip->reason = reason;
	skip->message = MemoryContextStrdup(launcher.run_context, message);
	skip->database = MemoryContextStrdup(launcher.run_context, job->definition.database);
	skip->username = MemoryContextStrdup(launcher.run_context, job->definition.username);

	/*
	 * What follows from other jobs is written before what it follows from: a
	 * crash in between must not leave the cause alone.
	 */
	skip->trigger = job->schedule.kind == SCHEDULE_AFTER ? "after" : "schedule";
	if (job->schedule.kind == SCHEDULE_AFTER)
		dlist_push_head(&launcher.skips, &skip->node);
	else
		dlist_push_tail(&launcher.skips, &skip->node);
}

/* A run that holds no slot, and so has its job, will not start after all. */
static void
abandon_run(Run *run, const char *reason, const char *message)
{
	clockwork_run_skip_due_time(run->job, run->due_time, run->runid, reason, message);
	clockwork_run_destroy(run);
}

/* The runs of a job that have no worker yet will not start. */
void
clockwork_run_abandon_all(Job *job, const char *reason, const char *message)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->awaiting)
		abandon_run(run_of_job(iter.cur), reason, message);
	dlist_foreach_modify(iter, &job->waiting)
		abandon_run(run_of_job(iter.cur), reason, message);
	dlist_foreach_modify(iter, &job->under_way)
	{
		Run		   *run = run_of_job(iter.cur);

		/* A slot without a worker can be taken back. */
		if (run->slot >= 0 && slot_state(clockwork_shmem_slot(run->slot)) == SLOT_BEGUN)
			clockwork_run_release_slot(run);
		if (run->slot < 0)
			abandon_run(run, reason, message);
	}
}

void
clockwork_run_promote_waiting(Job *job)
{
	Run		   *next;

	if (!dlist_is_empty(&job->under_way) || dlist_is_empty(&job->waiting))
		return;
	next = run_of_job(dlist_head_node(&job->waiting));
	clockwork_run_put_under_way(next);
	clockwork_run_make_ready(next);
}

/* Give the slot back; the run is forgotten. */
void
clockwork_run_release_slot(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	clockwork_shmem_free_text(&slot->command);
	clockwork_shmem_free_text(&slot->outcome.message);
	clockwork_shmem_free_text(&slot->outcome.detail);
	clockwork_shmem_free_text(&slot->outcome.hint);
	clockwork_shmem_free_text(&slot->outcome.context);
	slot_set_state(slot, SLOT_FREE);
	launcher.slot_runs[run->slot] = NULL;
	run->slot = -1;
}

int
clockwork_run_find_free_slot(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
		if (launcher.slot_runs[i] == NULL && slot_state(clockwork_shmem_slot(i)) == SLOT_FREE)
			return i;
	return -1;
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
	pfree(skip->database);
	pfree(skip->username);
	pfree(skip);
}

void
clockwork_run_free_late(Late *late)
{
	dlist_delete(&late->node);
	if (late->ending.message)
		pfree(unconstify(char *, late->ending.message));
	if (late->ending.detail)
		pfree(unconstify(char *, late->ending.detail));
	if (late->ending.hint)
		pfree(unconstify(char *, late->ending.hint));
	if (late->ending.context)
		pfree(unconstify(char *, late->ending.context));
	pfree(late);
}

void
clockwork_run_free_retiree(Retiree *retiree)
{
	dlist_delete(&retiree->node);
	pfree(retiree);
}

/* ---- what the slots say ---- */

/* Has the process of this run gone? */
static bool
process_gone(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	pid_t		pid;

	if (run->handle)
		return GetBackgroundWorkerPid(run->handle, &pid) == BGWH_STOPPED;
	if (slot->pid != 0)
		return kill(slot->pid, 0) != 0 && errno == ESRCH;
	return launcher.now.monotonic - run->launched_at > ADOPTED_START_MS * 1000L;
}

bool
clockwork_run_is_over(Run *run)
{
	return run->ended && process_gone(run);
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
	slot->outcome.message = clockwork_shmem_keep_text(message, strlen(message));
	slot->end_time = launcher.now.wall;
	slot_set_state(slot, SLOT_ENDED);
}

static void
reap_run(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	SlotState	state = slot_state(slot);

	if (state == SLOT_LAUNCHED && process_gone(run) &&
		slot_swap_state(slot, SLOT_LAUNCHED, SLOT_CLAIMED))
		end_without_worker(slot, "could not start background process; "
						   "more details may be available in the server log");
	else if (state == SLOT_RUNNING && process_gone(run) &&
			 slot_state(slot) == SLOT_RUNNING)
		end_without_worker(slot, "the worker is gone without having reported an outcome");

	/* A slot counts until its process is gone: the cap is never exceeded. */
	if (clockwork_run_is_over(run))
	{
		clockwork_run_release_slot(run);
		clockwork_run_destroy(run);
	}
}

void
clockwork_run_reap(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
		if (launcher.slot_runs[i])
			reap_run(launcher.slot_runs[i]);
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
		run = MemoryContextAllocZero(launcher.run_context, sizeof(Run));
		run->runid = slot->runid;
		run->jobid = slot->jobid;
		run->due_time = slot->due_time;
		run->attempt = slot->attempt;
		run->trigger = "schedule";
		run->slot = i;
		run->launched_at = launcher.now.monotonic;
		launcher.slot_runs[i] = run;
		if (state == SLOT_CLAIMED)
		{
			/* Whether its record was committed shows when records are recovered. */
			if (slot->runid != 0)
				launcher.claimed[launcher.nclaimed++] = slot->runid;
			clockwork_run_release_slot(run);
			clockwork_run_destroy(run);
		}
	}
}

void
clockwork_run_list_init(void)
{
	launcher.run_context = AllocSetContextCreate(TopMemoryContext, "pg_clockwork runs",
												 ALLOCSET_DEFAULT_SIZES);
	launcher.slot_runs = MemoryContextAllocZero(launcher.run_context,
												sizeof(Run *) * launcher.panel->nslots);
	launcher.claimed = MemoryContextAllocZero(launcher.run_context,
											  sizeof(int64) * launcher.panel->nslots);
	clockwork_due_heap_init(&launcher.ready, resize_heap);
	dlist_init(&launcher.queued_runs);
	dlist_init(&launcher.held_runs);
	dlist_init(&launcher.skips);
	dlist_init(&launcher.late_endings);
	dlist_init(&launcher.retirees);
	dlist_init(&launcher.outcomes);
	dlist_init(&launcher.undecided);
	launcher.has_backlog = true;	/* a former launcher may have left one */
	adopt_slots();
}
