/*
 * Getting ready for what is due in a moment.
 *
 * A run can only start on the instant if a process is connected by then and its
 * record is on disk by then.  Both take milliseconds, which are spent before:
 *
 *	 warm		a worker is asked for that has no run yet: it connects, and waits in
 *				its slot like one that has ended its last run
 *	 begin		the run is recorded as starting and handed to the worker that
 *				waits, with the instant at which its command may begin
 *
 * The worker itself waits for that instant (worker.c), so a launcher that is busy
 * then delays nothing.  Until the instant the run can be taken back, and is when
 * its job changes, when everything is paused or held, when the clock is set and
 * when the server stops (clockwork_run_withdraw_all): its record is removed, and
 * its due time is as if it had not been looked at.
 *
 * Both are done only where nothing could come out differently at the instant: no
 * other run of the job is there, no run waits for a slot.  How long before is
 * measured: what connecting and writing took lately.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "guc.h"
#include "run_policy.h"
#include "session.h"
#include "start_ahead.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

/* More jobs than this, due in one moment, are left to the moment itself. */
#define JOBS_MAX 4096

/* Bounds for how long before the instant, in microseconds. */
#define WARM_LEAST (20 * INT64CONST(1000))
#define WARM_MOST (1000 * INT64CONST(1000))
#define BEGIN_LEAST (3 * INT64CONST(1000))
#define BEGIN_MOST (50 * INT64CONST(1000))

/* A worker that is counted on waits so much longer than the instant. */
#define KEEP_USEC (200 * INT64CONST(1000))

static int64 warm_lead = 2 * WARM_LEAST;
static int64 begin_lead = 2 * BEGIN_LEAST;

typedef struct Candidate
{
	Job		   *job;
	TimestampTz start;
	int64		rank;
} Candidate;

/* Twice what it took, and slow to forget. */
static int64
learn(int64 lead, int64 taken, int64 least, int64 most)
{
	return Min(most, Max(least, Max(lead - lead / 16, 2 * taken)));
}

void
clockwork_start_ahead_note_write(int64 taken)
{
	begin_lead = learn(begin_lead, taken, BEGIN_LEAST, BEGIN_MOST);
}

/* How long did those take that have connected since the last pass? */
static void
note_connected(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		IdleWorker *idle = &launcher.idle_workers[i];

		if (idle->requested_at == 0 || slot_state(clockwork_shmem_slot(i)) != SLOT_IDLE)
			continue;
		warm_lead = learn(warm_lead, launcher.now.monotonic - idle->requested_at, WARM_LEAST, WARM_MOST);
		idle->requested_at = 0;
	}
}

/* Is it time, and would what is prepared be what happens? */
static bool
is_time(int64 lead)
{
	return cron_start_ahead && launcher.may_begin && !launcher.is_leaving && launcher.ready.count == 0 &&
		clockwork_job_list_next_due() <= launcher.now.wall + lead;
}

TimestampTz
clockwork_start_ahead_next_look(TimestampTz now)
{
	TimestampTz first = clockwork_job_list_next_due();

	if (!cron_start_ahead || !launcher.may_begin || first == DT_NOEND)
		return DT_NOEND;
	if (first - warm_lead > now)
		return first - warm_lead;
	return first - begin_lead > now ? first - begin_lead : DT_NOEND;
}

/* ---- warm ---- */

static void
keep(int slot_index, TimestampTz start)
{
	int64		at = launcher.now.monotonic + (start - launcher.now.wall);

	launcher.idle_workers[slot_index].kept_for = at;
	clockwork_shmem_slot(slot_index)->wanted_until = at + KEEP_USEC;
}

/* Ask for a worker for the job's next run.  False if there is none to be had.  Needs a transaction. */
static bool
warm(Job *job, int slot_index)
{
	RunSlot    *slot = clockwork_shmem_slot(slot_index);
	IdleWorker *idle = &launcher.idle_workers[slot_index];
	Oid			role = job->definition.owner;
	Oid			database = get_database_oid(job->definition.database, true);

	if (!OidIsValid(database) || !OidIsValid(role) || GetUserNameFromId(role, true) == NULL)
	{
		job->cannot_warm = true;
		return true;
	}
	slot->generation++;
	slot->runid = 0;
	slot->database = database;
	slot->role = role;
	slot->leaves = false;
	slot->dismissed = false;
	idle->role = role;
	strlcpy(idle->database_name, job->definition.database, NAMEDATALEN);
	idle->is_new = true;
	idle->jobid = job->jobid;
	idle->requested_at = launcher.now.monotonic;
	keep(slot_index, job->due.key);
	slot_set_state(slot, SLOT_WARMING);
	if (clockwork_run_request_worker(slot_index, &idle->handle))
		return true;
	idle->requested_at = 0;
	idle->kept_for = 0;
	slot_set_state(slot, SLOT_FREE);
	return false;
}

/* Those of the jobs for which a worker waits have one; returns how many are left, in front. */
static int
find_cold(Job **jobs, int count)
{
	int			cold = 0;

	for (int i = 0; i < count; i++)
	{
		Job		   *job = jobs[i];
		int			slot_index;

		/* Once for each due time: whoever had the worker leave had a reason. */
		if (job->warmed_for == job->due_time || !clockwork_job_may_run(job) ||
			!dlist_is_empty(&job->under_way) || !dlist_is_empty(&job->waiting))
			continue;
		slot_index = clockwork_run_find_waiting(job, true);
		if (slot_index >= 0)
		{
			job->warmed_for = job->due_time;
			keep(slot_index, job->due.key);
		}
		else if (!job->cannot_warm)
			jobs[cold++] = job;
	}
	return cold;
}

void
clockwork_start_ahead_warm(void)
{
	Job		  **jobs;
	int			cold;

	note_connected();
	if (!is_time(warm_lead) || !clockwork_run_has_free_slot())
		return;
	jobs = palloc(sizeof(Job *) * JOBS_MAX);
	cold = clockwork_job_list_find_due(launcher.now.wall + warm_lead, jobs, JOBS_MAX);
	cold = find_cold(jobs, Min(cold, JOBS_MAX));
	if (cold == 0 || clockwork_run_find_free_slot() < 0)
		return;
	clockwork_session_begin();
	for (int i = 0; i < cold; i++)
	{
		int			slot_index = clockwork_run_find_free_slot();

		if (slot_index < 0 || !warm(jobs[i], slot_index))
			break;
		jobs[i]->warmed_for = jobs[i]->due_time;
	}
	clockwork_session_commit();
}

/* ---- begin ---- */

static bool
anybody_waits(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
		if (launcher.slot_runs[i] == NULL && slot_state(clockwork_shmem_slot(i)) == SLOT_IDLE)
			return true;
	return false;
}

/* In the order in which they would get their slots at the instant. */
static int
compare_candidates(const void *a, const void *b)
{
	const Candidate *one = a;
	const Candidate *other = b;

	if (one->rank != other->rank)
		return one->rank < other->rank ? -1 : 1;
	if (one->start != other->start)
		return one->start < other->start ? -1 : 1;
	return one->job->jobid < other->job->jobid ? -1 : 1;
}

/* NULL if there are too many to put them in order. */
static Candidate *
find_candidates(int *count)
{
	Job		  **jobs = palloc(sizeof(Job *) * JOBS_MAX);
	Candidate  *candidates;

	*count = clockwork_job_list_find_due(launcher.now.wall + begin_lead, jobs, JOBS_MAX);
	if (*count > JOBS_MAX)
		return NULL;
	candidates = palloc(sizeof(Candidate) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		candidates[i].job = jobs[i];
		candidates[i].start = jobs[i]->due.key;
		candidates[i].rank = clockwork_policy_rank(jobs[i]->definition.rules, jobs[i]->due.key);
	}
	qsort(candidates, *count, sizeof(Candidate), compare_candidates);
	return candidates;
}

void
clockwork_start_ahead_begin(void (*begin) (Run *run, int slot_index))
{
	Candidate  *candidates;
	int			count;

	if (!is_time(begin_lead) || !anybody_waits())
		return;
	candidates = find_candidates(&count);
	for (int i = 0; candidates && i < count; i++)
	{
		Job		   *job = candidates[i].job;
		int			slot_index;

		if (!clockwork_run_policy_is_simple(job) || !clockwork_run_role_has_room(job->definition.owner))
			continue;
		slot_index = clockwork_run_find_waiting(job, false);
		if (slot_index >= 0)
			begin(clockwork_run_policy_anticipate(job), slot_index);
	}
}
