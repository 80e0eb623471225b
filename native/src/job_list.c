/*
 * The jobs as the launcher knows them.
 */
#include "postgres.h"

#include "compat.h"
#include "guc.h"
#include "job_list.h"
#include "zone.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static MemoryContext job_context = NULL;
static HTAB *jobs = NULL;
static HTAB *shared_values = NULL;
static DueHeap due_jobs;
static uint32 current_mark = 0;
static long held = 0;			/* jobs of another installation */
static int64 interval_offset = 0;	/* microseconds, see set_interval_offset */

static void *
resize_heap(void *old, size_t bytes)
{
	if (old == NULL)
		return MemoryContextAllocHuge(job_context, bytes);
	return repalloc_huge(old, bytes);
}

/*
 * What many jobs have in common is kept once, however many there are.  Bytes that
 * are equal are the same bytes, as long as somebody holds them.
 */
typedef struct SharedKey
{
	const void *bytes;
	Size		size;
} SharedKey;

typedef struct Shared
{
	SharedKey	key;			/* must be first; the bytes are its own */
	int64		holders;
} Shared;

static uint32
hash_shared(const void *key, Size keysize)
{
	const SharedKey *shared = key;

	return DatumGetUInt32(hash_any(shared->bytes, (int) shared->size));
}

static int
match_shared(const void *a, const void *b, Size keysize)
{
	const SharedKey *one = a;
	const SharedKey *other = b;

	if (one->size != other->size)
		return 1;
	return memcmp(one->bytes, other->bytes, one->size);
}

void
clockwork_job_list_init(void)
{
	HASHCTL		control;

	Assert(job_context == NULL);
	job_context = AllocSetContextCreate(TopMemoryContext, "pg_clockwork jobs",
										ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(int64);
	control.entrysize = sizeof(Job);
	control.hcxt = job_context;
	jobs = hash_create("pg_clockwork jobs", 128, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	control.keysize = sizeof(SharedKey);
	control.entrysize = sizeof(Shared);
	control.hash = hash_shared;
	control.match = match_shared;
	shared_values = hash_create("pg_clockwork shared values", 128, &control,
								HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	clockwork_due_heap_init(&due_jobs, resize_heap);
}

Job *
clockwork_job_list_find(int64 jobid)
{
	return hash_search(jobs, &jobid, HASH_FIND, NULL);
}

long
clockwork_job_list_count(void)
{
	return hash_get_num_entries(jobs);
}

long
clockwork_job_list_held(void)
{
	return held;
}

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(a, b) == 0;
}

static bool
same_rules(const PolicyRules *a, const PolicyRules *b)
{
	return a->on_overlap == b->on_overlap && a->max_parallel == b->max_parallel &&
		a->on_missed == b->on_missed && a->start_deadline == b->start_deadline &&
		a->timeout == b->timeout && a->max_attempts == b->max_attempts &&
		a->retry_delay == b->retry_delay && same_text(a->retry_on, b->retry_on) &&
		a->jitter == b->jitter && a->priority == b->priority && a->starts_at == b->starts_at &&
		a->ends_at == b->ends_at && a->pause_after == b->pause_after;
}

bool
clockwork_job_list_is_known(const Job *job, const JobDefinition *definition)
{
	const JobDefinition *own = &job->definition;

	return own->jobid == definition->jobid && same_text(own->name, definition->name) &&
		same_text(own->schedule, definition->schedule) &&
		same_text(own->command, definition->command) &&
		same_text(own->database, definition->database) &&
		same_text(own->username, definition->username) &&
		same_text(own->timezone, definition->timezone) &&
		same_text(own->settings, definition->settings) && own->active == definition->active &&
		own->fresh_session == definition->fresh_session && own->priority == definition->priority &&
		own->anchor == definition->anchor && own->active_since == definition->active_since &&
		own->is_paused == definition->is_paused && same_rules(own->rules, definition->rules) &&
		same_text(own->paused_reason, definition->paused_reason) &&
		same_text(own->notify, definition->notify) && own->history == definition->history &&
		own->owner == definition->owner && own->held == definition->held;
}

static const void *
hold(const void *bytes, Size size)
{
	SharedKey	key = {bytes, size};
	Shared	   *shared;
	void	   *copy;

	if (bytes == NULL)
		return NULL;
	shared = hash_search(shared_values, &key, HASH_FIND, NULL);
	if (shared == NULL)
	{
		copy = MemoryContextAllocHuge(job_context, size);
		memcpy(copy, bytes, size);
		key.bytes = copy;
		shared = hash_search(shared_values, &key, HASH_ENTER, NULL);
		shared->holders = 0;
	}
	shared->holders++;
	return shared->key.bytes;
}

static void
let_go(const void *bytes, Size size)
{
	SharedKey	key = {bytes, size};
	Shared	   *shared;

	if (bytes == NULL)
		return;
	shared = hash_search(shared_values, &key, HASH_FIND, NULL);
	Assert(shared && shared->key.bytes == bytes);
	if (--shared->holders > 0)
		return;
	hash_search(shared_values, &key, HASH_REMOVE, NULL);
	pfree(unconstify(void *, bytes));
}

static const char *
hold_text(const char *text)
{
	return hold(text, text ? strlen(text) + 1 : 0);
}

static void
let_text_go(const char *text)
{
	let_go(text, text ? strlen(text) + 1 : 0);
}

static void
hold_definition(JobDefinition *own, const JobDefinition *definition)
{
	PolicyRules rules = *definition->rules;

	own->schedule = hold_text(definition->schedule);
	own->database = hold_text(definition->database);
	own->username = hold_text(definition->username);
	own->timezone = hold_text(definition->timezone);
	own->settings = hold_text(definition->settings);
	own->paused_reason = hold_text(definition->paused_reason);
	own->notify = hold_text(definition->notify);
	rules.retry_on = hold_text(rules.retry_on);
	own->rules = hold(&rules, sizeof(PolicyRules));
}

static void
let_definition_go(const JobDefinition *own)
{
	if (own->rules == NULL)
		return;					/* there is none yet */
	let_text_go(own->schedule);
	let_text_go(own->database);
	let_text_go(own->username);
	let_text_go(own->timezone);
	let_text_go(own->settings);
	let_text_go(own->paused_reason);
	let_text_go(own->notify);
	let_text_go(own->rules->retry_on);
	let_go(own->rules, sizeof(PolicyRules));
}

static Size
text_size(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

static const char *
put_text(char **place, const char *text)
{
	char	   *copy = *place;

	if (text == NULL)
		return NULL;
	strcpy(copy, text);
	*place += strlen(text) + 1;
	return copy;
}

/* Make a definition to be kept; name and command lie in what is returned. */
static char *
keep_definition(JobDefinition *own, const JobDefinition *definition)
{
	char	   *texts = MemoryContextAllocHuge(job_context, text_size(definition->name) +
											   text_size(definition->command) + 1);
	char	   *place = texts;

	*own = *definition;
	own->name = put_text(&place, definition->name);
	own->command = put_text(&place, definition->command);
	hold_definition(own, definition);
	return texts;
}

static void
replace_definition(Job *job, const JobDefinition *definition, char *texts)
{
	let_definition_go(&job->definition);
	if (job->texts)
		pfree(job->texts);
	job->definition = *definition;
	job->texts = texts;
}

/* Put a parsed schedule, or none, in the place of what the job has. */
static void
set_schedule(Job *job, const Schedule *schedule)
{
	const Schedule *old = job->schedule.parsed;

	job->schedule.parsed = hold(schedule, sizeof(Schedule));
	job->schedule.kind = schedule ? schedule->kind : SCHEDULE_CALENDAR;
	job->schedule.parent_count = schedule ? schedule->parent_count : 0;
	let_go(old, sizeof(Schedule));
}

static void
set_problem(Job *job, const char *problem, const char *detail)
{
	job->problem_is_outside = false;
	if (same_text(job->problem, problem) && same_text(job->problem_detail, detail))
		return;
	if (job->problem)
		pfree(job->problem);
	if (job->problem_detail)
		pfree(job->problem_detail);
	job->problem = problem ? MemoryContextStrdup(job_context, problem) : NULL;
	job->problem_detail = detail && detail[0] ? MemoryContextStrdup(job_context, detail) : NULL;
	job->problem_reported = false;
}

/* Parse what the definition says; what is wrong with it becomes its problem. */
static void
understand(Job *job)
{
	const JobDefinition *definition = &job->definition;
	Schedule	schedule;
	ScheduleReport report;

	if (!clockwork_schedule_parse(definition->schedule, strlen(definition->schedule),
								  definition->name,
								  definition->name ? strlen(definition->name) : 0,
								  &schedule, &report))
	{
		char	   *problem = psprintf("invalid schedule: %s", definition->schedule);

		set_problem(job, problem, report.detail);
		pfree(problem);
		set_schedule(job, NULL);
		return;
	}
	set_schedule(job, &schedule);
	job->zone = clockwork_zone_find(definition->timezone);
	if (job->zone == NULL)
	{
		char	   *problem = psprintf("time zone \"%s\" not recognized", definition->timezone);

		set_problem(job, problem, NULL);
		pfree(problem);
		return;
	}
	if (definition->held)
	{
		set_problem(job, "the job belongs to another installation of pg_clockwork", NULL);

		/*
		 * All of them share one line in the log.  No record: while a dump is
		 * being restored, it would take the number of one that is to come.
		 */
		job->problem_reported = true;
		return;
	}
	set_problem(job, NULL, NULL);
}

TimestampTz
clockwork_job_next_due(Job *job, TimestampTz after)
{
	const PolicyRules *rules = job->definition.rules;
	ScheduleZone zone = clockwork_zone_callbacks(job->zone);
	ScheduleInstant from = clockwork_policy_look_after(rules, clockwork_zone_instant(after));
	ScheduleInstant due = job->schedule.parsed == NULL ? SCHEDULE_NEVER :
		clockwork_schedule_next(job->schedule.parsed, &zone, cron_match_dom_and_dow,
								clockwork_zone_instant(job->anchor), from);

	if (due == SCHEDULE_NEVER || !clockwork_policy_in_bounds(rules, due))
		return DT_NOEND;
	return clockwork_zone_timestamp(due);
}

void
clockwork_job_list_set_outside_problem(Job *job, const char *problem, const char *detail)
{
	set_problem(job, problem, detail);
	job->problem_is_outside = problem != NULL;
}

bool
clockwork_job_list_is_due_at(Job *job, TimestampTz at)
{
	ScheduleZone zone = clockwork_zone_callbacks(job->zone);

	return job->due.place != 0 && job->due_time <= at && job->schedule.parsed != NULL &&
		clockwork_policy_in_bounds(job->definition.rules, clockwork_zone_instant(at)) &&
		clockwork_schedule_matches(job->schedule.parsed, &zone, cron_match_dom_and_dow,
								   clockwork_zone_instant(job->anchor),
								   clockwork_zone_instant(at));
}

TimestampTz
clockwork_job_start_of(Job *job, TimestampTz due)
{
	const PolicyRules *rules = job->definition.rules;
	TimestampTz next;

	if (rules->jitter == 0 || job->problem)
		return due;
	next = clockwork_job_next_due(job, due);
	return due + clockwork_policy_offset(rules, job->jobid, clockwork_zone_instant(due),
										 next == DT_NOEND ? POLICY_NEVER :
										 clockwork_zone_instant(next));
}

bool
clockwork_job_may_run(const Job *job)
{
	return job->definition.active && !job->definition.is_paused && job->problem == NULL;
}

static void
set_due(Job *job, TimestampTz due)
{
	job->due_time = due;
	if (due == DT_NOEND)
		clockwork_due_heap_remove(&due_jobs, &job->due);
	else
		clockwork_due_heap_set(&due_jobs, &job->due, clockwork_job_start_of(job, due), job->jobid);
}

void
clockwork_job_list_advance(Job *job, TimestampTz after)
{
	set_due(job, clockwork_job_may_run(job) ? clockwork_job_next_due(job, after) : DT_NOEND);
}

/* The first due time after `since` whose run is to start after `moment`. */
static void
resume(Job *job, TimestampTz moment, TimestampTz since)
{
	TimestampTz due = DT_NOEND;

	if (clockwork_job_may_run(job))
	{
		due = clockwork_job_next_due(job, Max(moment - job->definition.rules->jitter, since));
		while (due != DT_NOEND && clockwork_job_start_of(job, due) <= moment)
			due = clockwork_job_next_due(job, due);
	}
	set_due(job, due);
}

void
clockwork_job_list_resume(Job *job, TimestampTz moment)
{
	/* Active since later than now: the clock was set back since. */
	resume(job, moment, Min(job->definition.active_since, moment));
}

Job *
clockwork_job_list_put(const JobDefinition *definition, TimestampTz from, TimestampTz now,
					   bool is_news)
{
	bool		found;
	bool		reschedule = true;
	bool		move = false;
	JobDefinition own;
	char	   *texts = keep_definition(&own, definition);
	Job		   *job = hash_search(jobs, &definition->jobid, HASH_ENTER, &found);

	if (found)
	{
		const JobDefinition *old = &job->definition;

		reschedule = !same_text(old->schedule, definition->schedule) ||
			!same_text(old->name, definition->name) ||	/* "H" depends on it */
			!same_text(old->timezone, definition->timezone) ||
			old->held != definition->held ||
			old->anchor != definition->anchor ||
			old->active != definition->active ||
			old->is_paused != definition->is_paused;
		move = old->rules->jitter != definition->rules->jitter ||
			old->rules->starts_at != definition->rules->starts_at ||
			old->rules->ends_at != definition->rules->ends_at;
		if (old->active_since != definition->active_since)
			job->failures = 0;
	}
	else
	{
		memset((char *) job + sizeof(job->jobid), 0, sizeof(Job) - sizeof(job->jobid));
		dlist_init(&job->under_way);
		dlist_init(&job->waiting);
		dlist_init(&job->awaiting);
		dlist_init(&job->resting);
		job->is_unknown = !is_news &&
			(definition->rules->max_attempts > 1 || definition->rules->pause_after > 0);
		job->trimmed_to = DT_NOBEGIN;
		job->warmed_for = DT_NOBEGIN;
	}
	if (!found || !clockwork_job_list_is_known(job, definition))
		job->cannot_warm = false;

	held += (definition->held ? 1 : 0) - (found && job->definition.held ? 1 : 0);
	replace_definition(job, &own, texts);
	job->mark = current_mark;
	if (reschedule)
	{
		TimestampTz after = from;

		/* What was due and has not been collected yet is still due. */
		if (job->due.place != 0)
			after = Min(after, job->due_time - 1);

		/* Later than now: it was written before the clock was set back. */
		if (definition->active_since <= now)
			after = Max(after, definition->active_since);
		job->anchor = Min(definition->anchor, now) + interval_offset;
		understand(job);

		/* One instant: it may have passed before the job was committed. */
		if (is_news && job->problem == NULL && job->schedule.kind == SCHEDULE_AT)
			clockwork_job_list_advance(job, Min(after, definition->active_since));
		else if (job->due.place != 0)
			clockwork_job_list_advance(job, after);
		else
			resume(job, from, definition->active_since <= now ? definition->active_since : from);
	}
	else if (move && job->due.place != 0)
		clockwork_job_list_advance(job, job->due_time - 1);
	else if (move)
		clockwork_job_list_resume(job, from);
	return job;
}

void
clockwork_job_list_remove(Job *job)
{
	int64		jobid = job->jobid;

	Assert(dlist_is_empty(&job->under_way) && dlist_is_empty(&job->waiting) &&
		   dlist_is_empty(&job->resting));
	held -= job->definition.held ? 1 : 0;
	Assert(dlist_is_empty(&job->awaiting) && job->child == NULL && job->known_as == NULL);
	clockwork_due_heap_remove(&due_jobs, &job->due);
	if (job->must_trim)
		dlist_delete(&job->of_trims);
	set_problem(job, NULL, NULL);
	set_schedule(job, NULL);
	let_definition_go(&job->definition);
	if (job->texts)
		pfree(job->texts);
	hash_search(jobs, &jobid, HASH_REMOVE, NULL);
}

void
clockwork_job_list_begin_load(void)
{
	current_mark++;
}

bool
clockwork_job_list_seen(const Job *job)
{
	return job->mark == current_mark;
}

void
clockwork_job_list_sweep(void (*gone) (Job *job))
{
	HASH_SEQ_STATUS status;
	Job		   *job;

	/* dynahash lets a scan delete the entry it has just returned. */
	hash_seq_init(&status, jobs);
	while ((job = hash_seq_search(&status)) != NULL)
		if (job->mark != current_mark)
			gone(job);
}

void
clockwork_job_list_visit(void (*visit) (Job *job, void *arg), void *arg)
{
	HASH_SEQ_STATUS status;
	Job		   *job;

	hash_seq_init(&status, jobs);
	while ((job = hash_seq_search(&status)) != NULL)
		visit(job, arg);
}

static Job *
job_of_entry(DueEntry *entry)
{
	return (Job *) ((char *) entry - offsetof(Job, due));
}

Job *
clockwork_job_list_first_due(TimestampTz now)
{
	DueEntry   *entry = clockwork_due_heap_first(&due_jobs);

	return entry && entry->key <= now ? job_of_entry(entry) : NULL;
}

/* The entries under a place of the heap are not before it. */
static int
find_due_from(size_t place, TimestampTz until, Job **found, int count, int most)
{
	if (place > due_jobs.count || due_jobs.entries[place]->key > until || count > most)
		return count;
	if (count < most)
		found[count] = job_of_entry(due_jobs.entries[place]);
	count = find_due_from(2 * place, until, found, count + 1, most);
	return find_due_from(2 * place + 1, until, found, count, most);
}

int
clockwork_job_list_find_due(TimestampTz until, Job **found, int most)
{
	return find_due_from(1, until, found, 0, most);
}

void
clockwork_job_list_make_due(Job *job, TimestampTz due)
{
	if (clockwork_job_may_run(job) && (job->due.place == 0 || job->due_time > due))
		set_due(job, due);
}

TimestampTz
clockwork_job_list_next_due(void)
{
	DueEntry   *entry = clockwork_due_heap_first(&due_jobs);

	return entry ? (TimestampTz) entry->key : DT_NOEND;
}

static void
recompute_one(Job *job, void *from)
{
	clockwork_job_list_resume(job, *(TimestampTz *) from);
}

void
clockwork_job_list_recompute(TimestampTz from)
{
	clockwork_job_list_visit(recompute_one, &from);
}

static void
shift_one(Job *job, void *shift)
{
	int64		by = *(int64 *) shift;

	if (job->problem || job->schedule.kind != SCHEDULE_INTERVAL)
		return;
	job->anchor += by;
	if (job->due.place != 0)
		set_due(job, job->due_time + by);
}

void
clockwork_job_list_set_interval_offset(int64 offset)
{
	interval_offset = offset;
}

void
clockwork_job_list_shift_intervals(int64 step, int64 offset)
{
	/*
	 * A step is known to some microseconds only, which must not undo the
	 * offset: what is below a millisecond tells the stretches of time apart.
	 */
	int64		shift = step / 1000 * 1000 + offset - interval_offset;

	interval_offset = offset;
	clockwork_job_list_visit(shift_one, &shift);
}

static void
turn_back_one(Job *job, void *now)
{
	if (job->problem == NULL && job->schedule.kind == SCHEDULE_CALENDAR)
		clockwork_job_list_resume(job, *(TimestampTz *) now);
}

void
clockwork_job_list_turn_back(TimestampTz now)
{
	clockwork_job_list_visit(turn_back_one, &now);
}
