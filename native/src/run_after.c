/*
 * Runs that follow from runs of other jobs (@after).
 *
 * The graph has two kinds of node besides jobs.  A ParentName is a name of a
 * role's job that some schedule waits for, whether there is such a job or not.
 * A Child is a job with an @after schedule; its links lead to names.  A change
 * to a job costs work in proportion to what waits for it.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"
#include "run_after.h"
#include "run_log.h"
#include "session.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* So many due times are looked up in the table in one pass. */
#define LOOK_UPS_PER_PASS 100

/* Runs that await parents are looked at again after this, whatever happened:
 * what a parent was to do may have become impossible without a word. */
#define LOOK_AGAIN_MS 10000

typedef struct ParentName
{
	dlist_node	of_bucket;
	dlist_head	links;			/* from the children that wait for it */
	Job		   *job;			/* that bears the name now, or NULL */
	bool		is_new;			/* not looked for yet */
	Oid			owner;			/* the role whose job it is */
	char	   *jobname;
} ParentName;

typedef struct Link
{
	dlist_node	of_name;
	ParentName *name;
	struct Child *child;
	int			number;			/* of the parent in the schedule */
	ScheduleCondition condition;
} Link;

typedef struct Child
{
	dlist_node	node;			/* in linked, or in unlinked */
	Job		   *job;
	char	   *schedule;		/* as the links were made from it, */
	Oid			owner;			/* and for that role */
	bool		is_new;			/* runs that its parents have under way are new to it */
	uint32		mark;			/* of the last search that came by */
	int			nparents;
	Link		links[FLEXIBLE_ARRAY_MEMBER];
} Child;

/* Names with the same hash. */
typedef struct Bucket
{
	uint64		hash;			/* hash key, must be first */
	dlist_head	names;
} Bucket;

static MemoryContext after_context = NULL;
static HTAB *buckets = NULL;
static dlist_head linked = DLIST_STATIC_INIT(linked);
static dlist_head unlinked = DLIST_STATIC_INIT(unlinked);
static bool must_link = false;
static bool has_new_names = false;
static bool has_new_children = false;
static int64 look_again_at = 0; /* monotonic; 0: nothing awaits */

/* The children that a search has come to, and is still to go on from. */
static Child **frontier = NULL;
static int	frontier_count;
static int	frontier_space = 0;
static uint32 current_search = 0;

/* ---- names ---- */

void
clockwork_after_init(void)
{
	HASHCTL		control;

	after_context = AllocSetContextCreate(TopMemoryContext, "pg_clockwork parents",
										  ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(Bucket);
	control.hcxt = after_context;
	buckets = hash_create("pg_clockwork parents", 64, &control,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static uint64
hash_name(Oid owner, const char *jobname)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) jobname,
											(int) strlen(jobname), owner));
}

static ParentName *
find_name(Oid owner, const char *jobname)
{
	uint64		hash = hash_name(owner, jobname);
	Bucket	   *bucket = hash_search(buckets, &hash, HASH_FIND, NULL);
	dlist_iter	iter;

	if (bucket == NULL)
		return NULL;
	dlist_foreach(iter, &bucket->names)
	{
		ParentName *name = dlist_container(ParentName, of_bucket, iter.cur);

		if (name->owner == owner && strcmp(name->jobname, jobname) == 0)
			return name;
	}
	return NULL;
}

static ParentName *
put_name(Oid owner, const char *jobname)
{
	ParentName *name = find_name(owner, jobname);
	uint64		hash = hash_name(owner, jobname);
	Bucket	   *bucket;
	bool		found;

	if (name)
		return name;
	name = MemoryContextAllocZero(after_context, sizeof(ParentName));
	name->owner = owner;
	name->jobname = MemoryContextStrdup(after_context, jobname);
	name->is_new = true;
	dlist_init(&name->links);
	bucket = hash_search(buckets, &hash, HASH_ENTER, &found);
	if (!found)
		dlist_init(&bucket->names);
	dlist_push_tail(&bucket->names, &name->of_bucket);
	has_new_names = true;
	return name;
}

/* Nobody waits for that name any more. */
static void
remove_name(ParentName *name)
{
	uint64		hash = hash_name(name->owner, name->jobname);
	Bucket	   *bucket = hash_search(buckets, &hash, HASH_FIND, NULL);

	if (name->job)
		name->job->known_as = NULL;
	dlist_delete(&name->of_bucket);
	if (bucket && dlist_is_empty(&bucket->names))
		hash_search(buckets, &hash, HASH_REMOVE, NULL);
	pfree(name->jobname);
	pfree(name);
}

static void
decide_soon(Run *run)
{
	if (run->must_decide)
		return;
	run->must_decide = true;
	dlist_push_tail(&launcher.undecided, &run->undecided);
}

/* Something has changed for all runs of the job that await parents. */
static void
decide_again(Job *job)
{
	dlist_iter	iter;

	dlist_foreach(iter, &job->awaiting)
		decide_soon(run_of_job(iter.cur));
}

/* Its links are to be looked at. */
static void
link_soon(Child *child)
{
	dlist_delete(&child->node);
	dlist_push_tail(&unlinked, &child->node);
	must_link = true;
}

static void
decide_children_again(ParentName *name)
{
	dlist_iter	iter;

	dlist_foreach(iter, &name->links)
		decide_again(dlist_container(Link, of_name, iter.cur)->child->job);
}

/* The job, which may be NULL, bears the name now. */
static void
give_name(ParentName *name, Job *job)
{
	dlist_iter	iter;

	if (name->job != job)
		dlist_foreach(iter, &name->links)
			link_soon(dlist_container(Link, of_name, iter.cur)->child);
	if (name->job && name->job != job)
		name->job->known_as = NULL;
	name->job = job;
	if (job == NULL)
		return;
	if (job->known_as && job->known_as != name)
		job->known_as->job = NULL;
	job->known_as = name;
}

static void
resolve_names_of(Job *job, void *arg)
{
	ParentName *name = job->definition.name ?
		find_name(job->definition.owner, job->definition.name) : NULL;

	if (name && name->is_new)
		give_name(name, job);
}

static void
resolve_new_names(void)
{
	HASH_SEQ_STATUS status;
	Bucket	   *bucket;
	dlist_iter	iter;

	clockwork_job_list_visit(resolve_names_of, NULL);
	hash_seq_init(&status, buckets);
	while ((bucket = hash_seq_search(&status)) != NULL)
		dlist_foreach(iter, &bucket->names)
			dlist_container(ParentName, of_bucket, iter.cur)->is_new = false;
	has_new_names = false;
}

/* ---- children ---- */

static void
remove_child(Child *child)
{
	for (int i = 0; i < child->nparents; i++)
	{
		ParentName *name = child->links[i].name;

		dlist_delete(&child->links[i].of_name);
		if (dlist_is_empty(&name->links))
			remove_name(name);
	}
	dlist_delete(&child->node);
	child->job->child = NULL;
	pfree(child->schedule);
	pfree(child);
}

static void
make_child(Job *job)
{
	const char *text = job->definition.schedule;
	size_t		length = strlen(text);
	char	   *jobname = palloc(length + 1);
	int			count = job->schedule.parent_count;
	Child	   *child = MemoryContextAllocZero(after_context,
											   offsetof(Child, links) + count * sizeof(Link));
	ScheduleParent parent;
	size_t		position = 0;

	child->job = job;
	child->schedule = MemoryContextStrdup(after_context, text);
	child->owner = job->definition.owner;
	child->is_new = true;
	has_new_children = true;
	while (child->nparents < count &&
		   clockwork_schedule_next_parent(text, length, &position, &parent))
	{
		Link	   *link = &child->links[child->nparents];

		(void) clockwork_schedule_parent_name(&parent, jobname, length + 1);
		link->name = put_name(child->owner, jobname);
		link->child = child;
		link->number = child->nparents++;
		link->condition = parent.condition;
		dlist_push_tail(&link->name->links, &link->of_name);
	}
	pfree(jobname);
	dlist_push_tail(&unlinked, &child->node);
	must_link = true;
	job->child = child;
}

/* Runs that await what the job's schedule no longer says. */
static void
skip_awaiting(Job *job, const char *reason, const char *message)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &job->awaiting)
	{
		Run		   *run = run_of_job(iter.cur);

		clockwork_run_skip_due_time(job, run->due_time, run->runid, reason, message);
		clockwork_run_destroy(run);
	}
}

static void
put_child(Job *job)
{
	Child	   *child = job->child;
	bool		is_child = (job->problem == NULL || job->problem_is_outside) &&
		job->schedule.kind == SCHEDULE_AFTER;

	if (child && is_child && strcmp(child->schedule, job->definition.schedule) == 0 &&
		child->owner == job->definition.owner)
	{
		link_soon(child);		/* its problem may be forgotten */
		return;
	}
	if (child)
	{
		skip_awaiting(job, "rescheduled", "the job's schedule was changed");
		remove_child(child);
	}
	if (is_child)
		make_child(job);
}

void
clockwork_after_put_job(Job *job)
{
	ParentName *name = NULL;

	put_child(job);
	if (job->definition.name && hash_get_num_entries(buckets) > 0)
		name = find_name(job->definition.owner, job->definition.name);
	if (job->known_as && job->known_as != name)
		give_name(job->known_as, NULL);
	if (name)
	{
		give_name(name, job);
		decide_children_again(name);	/* it may have become active, or not */
	}
}

void
clockwork_after_drop_job(Job *job)
{
	if (job->known_as)
	{
		decide_children_again(job->known_as);
		give_name(job->known_as, NULL);
	}
	if (job->child)
		remove_child(job->child);
}

/* ---- problems ---- */

static void
begin_search(void)
{
	current_search++;
	frontier_count = 0;
}

/* Go on from there too, unless the search has been there. */
static void
search_from(Child *child)
{
	if (child->mark == current_search)
		return;
	child->mark = current_search;
	if (frontier_count >= frontier_space)
	{
		frontier_space = Max(64, frontier_space * 2);
		frontier = frontier == NULL ?
			MemoryContextAllocHuge(after_context, sizeof(Child *) * frontier_space) :
			repalloc_huge(frontier, sizeof(Child *) * frontier_space);
	}
	frontier[frontier_count++] = child;
}

/* Does what the child waits for wait for the child? */
static bool
is_in_cycle(Child *child)
{
	begin_search();
	search_from(child);
	while (frontier_count > 0)
	{
		Child	   *next = frontier[--frontier_count];

		for (int i = 0; i < next->nparents; i++)
		{
			Job		   *parent = next->links[i].name->job;

			if (parent == child->job)
				return true;
			if (parent && parent->child && parent->problem == NULL)
				search_from(parent->child);
		}
	}
	return false;
}

static void
link_child(Child *child)
{
	Job		   *job = child->job;
	char	   *problem = NULL;

	for (int i = 0; i < child->nparents && problem == NULL; i++)
		if (child->links[i].name->job == NULL)
			problem = psprintf("job \"%s\", which its schedule waits for, does not exist",
							   child->links[i].name->jobname);
	if (problem == NULL && is_in_cycle(child))
		problem = pstrdup("the jobs that its schedule waits for wait for it in turn");

	if (problem)
	{
		clockwork_job_list_set_outside_problem(job, problem,
											   "Names in a schedule stand for jobs of the same role.");
		skip_awaiting(job, "parent_missing", problem);
		if (!job->problem_reported)
			launcher.problems_pending = true;
		pfree(problem);
		return;					/* it stays unlinked */
	}
	if (job->problem_is_outside)
	{
		clockwork_job_list_set_outside_problem(job, NULL, NULL);
		child->is_new = true;
		has_new_children = true;
	}
	decide_again(job);
	dlist_delete(&child->node);
	dlist_push_tail(&linked, &child->node);
}

void
clockwork_after_link(void)
{
	dlist_mutable_iter iter;

	if (has_new_names)
		resolve_new_names();
	if (!must_link)
		return;
	must_link = false;
	dlist_foreach_modify(iter, &unlinked)
		link_child(dlist_container(Child, node, iter.cur));
}

/* ---- runs that await their parents ---- */

static bool
hears_events(const Child *child)
{
	return child->job->problem == NULL && child->job->definition.active;
}

/* The child's run for that due time that awaits its parents; made if need be. */
static Run *
await(Child *child, TimestampTz due_time)
{
	Run		   *run = clockwork_run_find(child->job, due_time);

	if (run)
		return run->place == RUN_AWAITING ? run : NULL;
	run = clockwork_run_create(child->job, due_time, 1, "after");
	run->awaited = MemoryContextAllocZero(launcher.run_context, sizeof(Awaited) * child->nparents);
	run->must_look_up = child->nparents > 1;
	clockwork_run_put_awaiting(run);
	return run;
}

static void
announce_to(Child *child, const Run *parent)
{
	Run		   *run = hears_events(child) ? await(child, parent->due_time) : NULL;

	if (run == NULL)
		return;
	clockwork_run_must_record(run);
	if (look_again_at == 0)
		look_again_at = launcher.now.monotonic + LOOK_AGAIN_MS * 1000L;
}

void
clockwork_after_announce(const Run *run)
{
	dlist_iter	iter;

	if (run->job == NULL || run->job->known_as == NULL)
		return;
	dlist_foreach(iter, &run->job->known_as->links)
		announce_to(dlist_container(Link, of_name, iter.cur)->child, run);
}

/* Runs that its parents had under way before the child was known. */
static void
announce_under_way(Child *child)
{
	for (int i = 0; i < child->nparents; i++)
	{
		Job		   *parent = child->links[i].name->job;
		dlist_iter	iter;

		if (parent == NULL)
			continue;
		dlist_foreach(iter, &parent->under_way)
			if (run_of_job(iter.cur)->slot >= 0)
				announce_to(child, run_of_job(iter.cur));
	}
	child->is_new = false;
}

bool
clockwork_after_take_up(const OpenRecord *record)
{
	Job		   *job = clockwork_job_list_find(record->jobid);
	Run		   *run;

	if (job == NULL || job->child == NULL || !hears_events(job->child))
		return false;
	run = await(job->child, record->due_time);
	if (run == NULL || (run->runid != 0 && run->runid != record->runid))
		return false;
	if (run->is_unrecorded)
		dlist_delete(&run->unrecorded);
	run->is_unrecorded = false;
	run->runid = record->runid;
	run->shown_awaiting = true;
	run->must_look_up = true;
	decide_soon(run);
	return true;
}

TimestampTz
clockwork_after_earliest_awaited(const Job *job)
{
	TimestampTz earliest = DT_NOEND;
	dlist_iter	iter;
	dlist_iter	run;

	if (job->known_as == NULL)
		return earliest;
	dlist_foreach(iter, &job->known_as->links)
		dlist_foreach(run, &dlist_container(Link, of_name, iter.cur)->child->job->awaiting)
			earliest = Min(earliest, run_of_job(run.cur)->due_time);
	return earliest;
}

char *
clockwork_after_describe(const Run *run)
{
	return psprintf("waiting for %s", run->job->definition.schedule);
}

/* ---- outcomes ---- */

/*
 * A due time that is skipped now, without a record so far, may have had its run
 * before a crash: then the table has the truth, and the skip leaves no record.
 */
static bool
is_unproved(AfterOutcome outcome, int64 runid)
{
	return outcome == AFTER_SKIPPED && runid == 0;
}

static void
hear(Link *link, const Outcome *noted)
{
	Child	   *child = link->child;
	Run		   *run;
	Awaited    *awaited;

	if (!hears_events(child))
		return;
	run = clockwork_run_find(child->job, noted->due_time);

	/* What others missed before the job was there is no loss of its own. */
	if (run == NULL && (noted->outcome == AFTER_AWAITED ||
						(noted->outcome == AFTER_SKIPPED &&
						 noted->due_time < child->job->definition.active_since)))
		return;
	run = await(child, noted->due_time);
	if (run == NULL)
		return;
	if (noted->outcome == AFTER_AWAITED || is_unproved(noted->outcome, noted->runid))
		run->must_look_up = true;
	if (noted->outcome != AFTER_AWAITED)
	{
		awaited = &run->awaited[link->number];
		awaited->outcome = noted->outcome;
		awaited->runid = noted->runid;
		strlcpy(awaited->reason, noted->reason ? noted->reason : "", sizeof(awaited->reason));
	}
	decide_soon(run);
}

static void
hear_outcomes(void)
{
	while (!dlist_is_empty(&launcher.outcomes))
	{
		Outcome    *noted = dlist_container(Outcome, node, dlist_pop_head_node(&launcher.outcomes));
		Job		   *job = clockwork_job_list_find(noted->jobid);
		dlist_iter	iter;

		if (job && job->known_as)
			dlist_foreach(iter, &job->known_as->links)
				hear(dlist_container(Link, of_name, iter.cur), noted);
		pfree(noted);
	}
}

/*
 * Has the job a run for that due time, or will it have one by itself?  If it
 * waits for others, the search goes on there.
 */
static bool
has_or_will_have(Job *job, TimestampTz due_time)
{
	if (clockwork_run_find(job, due_time))
		return true;
	if (job->problem || !job->definition.active)
		return false;
	if (job->child == NULL)
		return clockwork_job_list_is_due_at(job, due_time);
	search_from(job->child);
	return false;
}

/*
 * Will that due time come to something in this job, as far as can be seen?
 * For a job that waits for others: in one of those.
 */
static bool
is_expected(Job *job, TimestampTz due_time)
{
	begin_search();
	if (has_or_will_have(job, due_time))
		return true;
	while (frontier_count > 0)
	{
		Child	   *child = frontier[--frontier_count];

		for (int i = 0; i < child->nparents; i++)
			if (child->links[i].name->job && has_or_will_have(child->links[i].name->job, due_time))
				return true;
	}
	return false;
}

static AfterVerdict
decide(Run *run, int *which)
{
	Child	   *child = run->job->child;
	AfterParent parents[SCHEDULE_PARENTS_MAX];

	for (int i = 0; i < child->nparents; i++)
	{
		Job		   *parent = child->links[i].name->job;

		parents[i].condition = child->links[i].condition;
		parents[i].outcome = run->awaited[i].outcome;
		if (parents[i].outcome != AFTER_AWAITED || run->awaited[i].is_open)
			continue;
		if (parent == NULL || !is_expected(parent, run->due_time))
			parents[i].outcome = AFTER_MISSING;
	}
	return clockwork_after_decide(parents, child->nparents, which);
}

static char *
describe_obstacle(const Run *run, int which)
{
	const Awaited *awaited = &run->awaited[which];
	const char *jobname = run->job->child->links[which].name->jobname;
	const char *verb = awaited->outcome == AFTER_FAILED ? "failed" : "succeeded";

	if (awaited->outcome == AFTER_AWAITED)
		return psprintf("job \"%s\" has no run due at %s", jobname,
						timestamptz_to_str(run->due_time));
	if (awaited->outcome == AFTER_SKIPPED)
		return psprintf("job \"%s\" was skipped: %s", jobname,
						awaited->reason[0] ? awaited->reason : "skipped");
	if (awaited->runid == 0)
		return psprintf("job \"%s\" %s", jobname, verb);
	return psprintf("run " INT64_FORMAT " of job \"%s\" %s", awaited->runid, jobname, verb);
}

/* What the table says of the run's parents, unless they have a run under way. */
static void
look_up(Run *run)
{
	Child	   *child = run->job->child;
	int64		jobids[SCHEDULE_PARENTS_MAX];
	LatestRecord *records;
	int			count;

	for (int i = 0; i < child->nparents; i++)
		jobids[i] = child->links[i].name->job ? child->links[i].name->job->jobid : 0;
	records = clockwork_run_log_find_latest(jobids, child->nparents, run->due_time, &count);
	for (int i = 0; i < child->nparents; i++)
	{
		Awaited    *awaited = &run->awaited[i];

		awaited->is_open = false;
		if ((awaited->outcome != AFTER_AWAITED &&
			 !is_unproved(awaited->outcome, awaited->runid)) || jobids[i] == 0 ||
			clockwork_run_find(child->links[i].name->job, run->due_time))
			continue;
		for (int r = 0; r < count; r++)
		{
			if (records[r].jobid != jobids[i])
				continue;
			awaited->outcome = clockwork_after_outcome(records[r].status);
			awaited->is_open = awaited->outcome == AFTER_AWAITED;
			awaited->runid = records[r].runid;
			strlcpy(awaited->reason, records[r].reason ? records[r].reason : "",
					sizeof(awaited->reason));
		}
	}
}

/* Runs about which the table is to be asked: at most so many at a time. */
typedef struct Questions
{
	Run		   *runs[LOOK_UPS_PER_PASS];
	int			count;
} Questions;

static void
ask(Questions *questions, Run *run)
{
	if (questions->count < LOOK_UPS_PER_PASS)
		questions->runs[questions->count++] = run;
}

/*
 * Decide what can be decided without the table.  A parent is missing only if
 * the table does not know better: then, and where there may be records from
 * before, it is asked.
 */
static void
decide_run(Run *run, void (*admit) (Run *run), Questions *questions, bool was_asked)
{
	int			which;
	AfterVerdict verdict;
	char	   *message;

	if (run->must_look_up && !was_asked)
	{
		ask(questions, run);
		return;
	}
	verdict = decide(run, &which);
	if (verdict == AFTER_SKIP && run->awaited[which].outcome == AFTER_AWAITED)
	{
		if (!dlist_is_empty(&launcher.outcomes))
			return;				/* it may be among those: once they are heard */
		if (!was_asked)
		{
			ask(questions, run);
			return;
		}
	}
	dlist_delete(&run->undecided);
	run->must_decide = false;
	run->must_look_up = false;
	switch (verdict)
	{
		case AFTER_WAIT:
			/* What the table has open is closed without our hearing of it. */
			for (int i = 0; i < run->job->child->nparents; i++)
				run->must_look_up |= run->awaited[i].is_open;
			clockwork_run_must_record(run);
			if (look_again_at == 0)
				look_again_at = launcher.now.monotonic + LOOK_AGAIN_MS * 1000L;
			break;
		case AFTER_RUN:
			pfree(run->awaited);
			run->awaited = NULL;
			clockwork_run_take_out(run);
			admit(run);
			break;
		case AFTER_SKIP:
			message = describe_obstacle(run, which);
			clockwork_run_skip_due_time(run->job, run->due_time, run->runid,
										clockwork_after_reason(run->awaited[which].outcome), message);
			pfree(message);
			clockwork_run_destroy(run);
			break;
	}
}

static void
answer(const Questions *questions)
{
	ExtensionObjects objects;
	ExtensionSection section;

	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
	{
		clockwork_extension_enter(&section, objects.owner);
		for (int i = 0; i < questions->count; i++)
			look_up(questions->runs[i]);
		clockwork_extension_leave(&section);
	}
	clockwork_session_commit();
}

void
clockwork_after_look_again(void)
{
	dlist_iter	iter;

	look_again_at = 0;
	dlist_foreach(iter, &linked)
	{
		Job		   *job = dlist_container(Child, node, iter.cur)->job;

		decide_again(job);
		if (!dlist_is_empty(&job->awaiting))
			look_again_at = launcher.now.monotonic + LOOK_AGAIN_MS * 1000L;
	}
}

static void
announce_to_new_children(void)
{
	dlist_iter	iter;

	if (!has_new_children)
		return;
	has_new_children = false;
	dlist_foreach(iter, &linked)
		if (dlist_container(Child, node, iter.cur)->is_new)
			announce_under_way(dlist_container(Child, node, iter.cur));
}

void
clockwork_after_settle(void (*admit) (Run *run))
{
	announce_to_new_children();
	if (look_again_at != 0 && clockwork_run_is_time(look_again_at))
		clockwork_after_look_again();

	/* What is skipped here is an outcome for others. */
	while (!dlist_is_empty(&launcher.outcomes) || !dlist_is_empty(&launcher.undecided))
	{
		Questions	questions;
		dlist_mutable_iter iter;

		questions.count = 0;
		hear_outcomes();
		dlist_foreach_modify(iter, &launcher.undecided)
			decide_run(dlist_container(Run, undecided, iter.cur), admit, &questions, false);
		if (questions.count == 0)
			continue;
		answer(&questions);
		for (int i = 0; i < questions.count; i++)
			decide_run(questions.runs[i], admit, &questions, true);
		if (dlist_is_empty(&launcher.outcomes))
			break;				/* the rest in the next pass: others may be due */
	}
}

bool
clockwork_after_is_due(void)
{
	return has_new_children || !dlist_is_empty(&launcher.undecided) ||
		!dlist_is_empty(&launcher.outcomes);
}
