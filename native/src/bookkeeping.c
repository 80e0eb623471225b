/*
 * Writing what a pass has found out: what ended, what begins, what will not run.
 *
 * A pass gathers what it has to write as entries, writes them in one
 * transaction, and then makes them true in memory.  If that fails, each entry
 * is tried in a transaction of its own, so that one that cannot be written (a
 * locked row, somebody's trigger, an index that refuses a long text) holds up
 * nobody else.  What the history does not take even alone goes to the backlog,
 * a table of the same shape, from where it moves when the history takes it: a
 * locked or broken history stops no job, and no record is lost.  What neither
 * takes (a full disk) is kept in memory and tried again, for as long as it
 * takes.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "bookkeeping.h"
#include "catalog.h"
#include "extension.h"
#include "guc.h"
#include "run_after.h"
#include "run_policy.h"
#include "run_request.h"
#include "session.h"
#include "start_ahead.h"

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* How many queued and skipped due times one pass writes, so that a flood of
 * them does not hold up the starting of runs. */
#define RECORDS_PER_PASS 500

/* After so many lock timeouts in a pass, the whole history is taken as locked
 * for HISTORY_LOCKED_MS: everything goes to the backlog at once. */
#define LOCK_TIMEOUTS_PER_PASS 2
#define HISTORY_LOCKED_MS 1000

/* While runs wait for slots, passes that write are this far apart, unless
 * enough has come together before. */
#define PACE_MS 20

/* A history that goes on refusing records is complained about this rarely. */
#define COMPLAIN_MS 10000


typedef enum EntryKind
{
	ENTRY_ENDING,				/* a run in a slot has ended */
	ENTRY_LATE,					/* an end that could not be written before */
	ENTRY_RUNNING,				/* a run has lasted long enough to be shown */
	ENTRY_BEGIN,				/* a ready run gets a slot */
	ENTRY_QUEUED,				/* a run waits */
	ENTRY_SKIP,					/* a due time gets no run */
	ENTRY_PROBLEM,				/* a job cannot run */
	ENTRY_RETIRE,				/* a job has had its one run */
	ENTRY_WITHDRAWAL			/* a run was begun ahead and is not to start */
} EntryKind;

typedef struct Entry
{
	EntryKind	kind;
	bool		alone;			/* it failed before, or may have to wait: not with
								 * others */
	bool		done;			/* written, or put off */
	Run		   *run;
	Late	   *late;
	Skip	   *skip;
	Retiree    *retiree;
	Withdrawal *withdrawal;
	Job		   *job;

	/* Set by writing, forgotten if that fails */
	int64		runid;			/* of an inserted record; RUNID_TAKEN: this due
								 * time had one already */
	bool		is_over;		/* BEGIN: it ended right here */
	int			sqlerrcode;		/* BEGIN: of the error that ended it here, or 0 */
	char	   *log_line;		/* to be logged once it is true */
} Entry;

#define RUNID_TAKEN (-1)

static Entry *entries;			/* of this pass */
static int	nentries;
static int	entries_space;

static int64 written_at = 0;	/* monotonic; when a pass last wrote something */

static int64 complain_at = 0;	/* monotonic; no complaint about the history
								 * before */

static Entry *
add_entry(EntryKind kind)
{
	Entry	   *entry;

	if (nentries >= entries_space)
	{
		entries_space = Max(64, entries_space * 2);
		entries = entries == NULL ?
			MemoryContextAlloc(launcher.run_context, sizeof(Entry) * entries_space) :
			repalloc(entries, sizeof(Entry) * entries_space);
	}
	entry = &entries[nentries++];
	memset(entry, 0, sizeof(*entry));
	entry->kind = kind;
	return entry;
}

static void
identify(RunIdentity *identity, const Run *run)
{
	const JobDefinition *definition = run->job ? &run->job->definition : NULL;

	memset(identity, 0, sizeof(*identity));
	identity->jobid = run->jobid;
	identity->due_time = run->due_time;
	identity->attempt = run->attempt;
	identity->trigger = run->trigger;
	if (definition)
	{
		identity->database = definition->database;
		identity->username = clockwork_acl_find_owner(definition->owner, definition->username);
		identity->command = definition->command;
	}
}

/* The same for a run in a slot, whose job may be gone.  Needs a transaction. */
static void
identify_in_slot(RunIdentity *identity, const Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	identify(identity, run);
	identity->database = get_database_name(slot->database);
	identity->username = GetUserNameFromId(slot->role, true);
	identity->command = clockwork_shmem_text(slot->command);
}

/*
 * Log a line about a job's run, if the user wants those, when it is true: the
 * line outlives the transaction that we are in.
 */
static void
say_later(Entry *entry, int64 jobid, const char *what, const char *text)
{
	MemoryContext caller;

	if (!cron_log_statement)
		return;
	caller = MemoryContextSwitchTo(launcher.pass_context);
	entry->log_line = psprintf("cron job " INT64_FORMAT " %s: %s", jobid, what, text);
	MemoryContextSwitchTo(caller);
}

/* -- ends -- */

static const char *
describe_reason(const RunSlot *slot)
{
	switch (slot->outcome.sqlerrcode)
	{
		case ERRCODE_ADMIN_SHUTDOWN:
			return slot->outcome.by_shutdown ? "shutdown" : "terminated";
		case ERRCODE_QUERY_CANCELED:
			return slot->outcome.is_cancel ? "canceled" : "error";
		default:
			return slot->start_time == 0 ? "could_not_start" : "error";
	}
}

static char *
slot_text(const SlotOutcome *outcome, dsa_pointer text)
{
	return clockwork_run_log_convert(clockwork_shmem_text(text), outcome->encoding);
}

/* It ended because the launcher told it to. */
static void
describe_stop(RunEnding *ending, const Run *run)
{
	ending->reason = run->stop_reason;
	if (strcmp(run->stop_reason, "timeout") == 0)
		ending->detail = "The run lasted longer than the timeout of its job.";
	else if (strcmp(run->stop_reason, "replaced") == 0)
		ending->detail = "A later due time of the job took its place.";
	else
	{
		ending->sqlerrcode = ERRCODE_QUERY_CANCELED;
		ending->elevel = ERROR;
		ending->message = CANCEL_MESSAGE;
		ending->detail = psprintf("Canceled by role \"%s\"%s.",
								  NameStr(clockwork_shmem_slot(run->slot)->cancel.by),
								  run->terminated_at == POLICY_NEVER ? "" :
								  ", and terminated after the grace period");
		ending->hint = NULL;
	}
}

/* Needs a transaction: texts of another encoding are converted. */
static void
describe_ending(RunEnding *ending, const Run *run)
{
	const RunSlot *slot = clockwork_shmem_slot(run->slot);
	const SlotOutcome *outcome = &slot->outcome;

	memset(ending, 0, sizeof(*ending));
	ending->pid = slot->pid;
	ending->start_time = slot->start_time != 0 ? slot->start_time : slot->end_time;
	ending->end_time = slot->end_time;
	ending->notify = NameStr(slot->notify);
	if (outcome->succeeded)
	{
		clockwork_run_log_describe_success(ending, outcome->tag, outcome->has_rows, outcome->rows);
		return;
	}
	ending->status = "failed";
	ending->reason = describe_reason(slot);
	ending->sqlerrcode = outcome->sqlerrcode;
	ending->elevel = outcome->elevel;
	ending->message = slot_text(outcome, outcome->message);
	if (ending->message == NULL)
		ending->message = clockwork_run_log_convert(outcome->note, outcome->encoding);
	ending->detail = slot_text(outcome, outcome->detail);
	ending->hint = slot_text(outcome, outcome->hint);
	ending->context = slot_text(outcome, outcome->context);
	if (clockwork_run_policy_was_stopped(run))
		describe_stop(ending, run);
}

/* Close a record, or write it again if it is gone. */
static void
finish_or_restore(int64 runid, const RunIdentity *identity, const RunEnding *ending)
{
	if (clockwork_run_log_finish(runid, ending) == RECORD_MISSING)
		clockwork_run_log_restore(runid, identity, ending);
}

static bool
has_ended(Run *run)
{
	return !run->ended && slot_state(clockwork_shmem_slot(run->slot)) == SLOT_ENDED;
}

static void
write_ending(Entry *entry, bool to_backlog)
{
	Run		   *run = entry->run;
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	RunEnding	ending;
	RunIdentity identity;

	describe_ending(&ending, run);
	if (run->runid == 0 || slot->outcome.is_recorded)
		;						/* nothing to write */
	else if (to_backlog)
	{
		identify_in_slot(&identity, run);
		(void) clockwork_run_log_keep(run->runid, &identity, &ending);
	}
	else
		switch (clockwork_run_log_finish(run->runid, &ending))
		{
			case RECORD_SUCCEEDED:
				/* Committed with the effects: it knows better than the slot. */
				slot->outcome.succeeded = true;
				clockwork_run_log_describe_success(&ending, CMDTAG_UNKNOWN, false, 0);
				ending.elevel = 0;
				break;
			case RECORD_MISSING:
				identify_in_slot(&identity, run);
				clockwork_run_log_restore(run->runid, &identity, &ending);
				break;
			default:
				break;
		}
	say_later(entry, run->jobid, ending.elevel == 0 ? "completed" : "failed", ending.message);
}

/* A job with an @at schedule becomes inactive after its run. */
static void
retire_later(int64 jobid)
{
	Retiree    *retiree = MemoryContextAllocZero(launcher.run_context, sizeof(Retiree));

	retiree->jobid = jobid;
	dlist_push_tail(&launcher.retirees, &retiree->node);
}

static void
confirm_ending(Run *run)
{
	Job		   *job = run->job;

	run->ended = true;
	clockwork_run_take_out(run);
	clockwork_run_set_alarm(run, POLICY_NEVER);
	if (job)
	{
		if (!run->asked)
			clockwork_run_must_trim(job, run->due_time,
									clockwork_shmem_slot(run->slot)->outcome.succeeded);
		if (clockwork_shmem_slot(run->slot)->outcome.succeeded)
			job->cannot_warm = false;
		clockwork_run_policy_ended(run, clockwork_run_policy_outcome(run),
								   clockwork_shmem_slot(run->slot)->outcome.sqlerrcode);
		if (!run->asked && job->problem == NULL && job->schedule.kind == SCHEDULE_AT &&
			dlist_is_empty(&job->resting))
			retire_later(run->jobid);
	}
	run->job = NULL;
}

static char *
keep_text(const char *text)
{
	return text ? MemoryContextStrdup(launcher.run_context, text) : NULL;
}

/*
 * The record of an end can be written nowhere.  The end is kept in memory, so
 * that the slot is free for others; should the launcher die before it is
 * written, the record is closed as one that was interrupted.
 */
static void
put_off_ending(Run *run)
{
	Late	   *late;

	if (run->runid != 0)
	{
		late = MemoryContextAllocZero(launcher.run_context, sizeof(Late));
		late->runid = run->runid;
		clockwork_session_begin();
		describe_ending(&late->ending, run);
		late->ending.message = keep_text(late->ending.message);
		late->ending.detail = keep_text(late->ending.detail);
		late->ending.hint = keep_text(late->ending.hint);
		late->ending.context = keep_text(late->ending.context);
		identify_in_slot(&late->identity, run);
		late->identity.command = keep_text(late->identity.command);
		late->identity.database = keep_text(late->identity.database);
		late->identity.username = keep_text(late->identity.username);
		late->ending.notify = keep_text(late->ending.notify);
		clockwork_session_commit();
		late->retry_at = clockwork_run_next_try(late->tries++);
		dlist_push_tail(&launcher.late_endings, &late->node);
	}
	confirm_ending(run);
}


/* -- running -- */

static bool
should_show_running(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);

	if (run->runid == 0 || run->ended || slot_state(slot) != SLOT_RUNNING || slot->start_time == 0)
		return false;

	/* Its worker waits for the word. */
	if (pg_atomic_read_u32(&slot->doubt) == DOUBT_ASKED)
		return true;
	return !run->shown_running &&
		launcher.now.monotonic - run->launched_at >= SHOW_RUNNING_MS * 1000L;
}

static void
write_running(Entry *entry)
{
	RunSlot    *slot = clockwork_shmem_slot(entry->run->slot);

	clockwork_run_log_running(entry->run->runid, slot->pid, slot->start_time,
							  pg_atomic_read_u32(&slot->doubt) != DOUBT_NONE);
}

/* It is shown, or cannot be: in that case its end will be. */
static void
confirm_running(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	uint32		asked = DOUBT_ASKED;

	run->shown_running = true;
	if (pg_atomic_compare_exchange_u32(&slot->doubt, &asked, DOUBT_ANSWERED))
		SetLatch(slot->latch);
}

/* -- beginnings -- */

/* Why the run cannot even be handed to a worker; false if it can. */
static bool
find_obstacle(const JobDefinition *definition, Oid *database, Oid *role, RunEnding *ending)
{
	memset(ending, 0, sizeof(*ending));
	ending->status = "failed";
	ending->elevel = FATAL;
	ending->start_time = launcher.now.wall;
	ending->end_time = launcher.now.wall;
	ending->notify = definition->notify;

	*role = definition->owner;
	if (!OidIsValid(*role) || GetUserNameFromId(*role, true) == NULL)
	{
		bool		replaced = OidIsValid(clockwork_acl_find_role(definition->username));

		ending->reason = replaced ? "role_replaced" : "role_missing";
		ending->sqlerrcode = ERRCODE_UNDEFINED_OBJECT;
		ending->message = psprintf(replaced ? "role \"%s\" is not the role that the job belongs to" :
								   "role \"%s\" does not exist", definition->username);
		if (replaced)
		{
			ending->detail = "The role was created after the job, or was dropped and created again.";
			ending->hint = psprintf("To give the job to the role of today, a superuser can use SELECT cron.adopt(" INT64_FORMAT ").",
									definition->jobid);
		}
		return true;
	}
	*database = get_database_oid(definition->database, true);
	if (!OidIsValid(*database))
	{
		ending->reason = "database_missing";
		ending->sqlerrcode = ERRCODE_UNDEFINED_DATABASE;
		ending->message = psprintf("database \"%s\" does not exist", definition->database);
		return true;
	}
	return false;
}

/* Will the worker that waits in the slot take a run there?  It may still leave first. */
static bool
has_worker_for(const RunSlot *slot, Oid database, Oid role)
{
	return slot->worker_pid != 0 && slot->database == database && slot->role == role &&
		!slot->leaves && !slot->dismissed;
}

static bool
fill_slot(const Run *run, int64 runid, Oid database, Oid role)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	const char *command = run->job->definition.command;
	const char *settings = run->job->definition.settings;

	/* The database may be another one of that name. */
	if (slot->worker_pid != 0 && (slot->database != database || slot->role != role))
		clockwork_shmem_dismiss(slot);
	slot->generation++;
	slot->runid = runid;
	slot->jobid = run->jobid;
	slot->due_time = run->due_time;
	slot->attempt = run->attempt;
	strlcpy(slot->trigger, run->trigger, sizeof(slot->trigger));
	strlcpy(NameStr(slot->notify), run->job->definition.notify ? run->job->definition.notify : "",
			NAMEDATALEN);
	memset(&slot->cancel, 0, sizeof(slot->cancel));
	slot->database = database;
	slot->role = role;
	slot->encoding = GetDatabaseEncoding();
	slot->command_length = strlen(command);
	slot->command = clockwork_shmem_keep_text(command, slot->command_length);
	slot->settings = settings ? clockwork_shmem_keep_text(settings, strlen(settings)) : InvalidDsaPointer;
	slot->fresh_session = run->job->definition.fresh_session;
	slot->not_before = run->is_ahead ? run->start : DT_NOBEGIN;
	slot->stays = false;
	slot->pid = 0;
	slot->start_time = 0;
	slot->end_time = 0;
	pg_atomic_write_u32(&slot->doubt, DOUBT_NONE);
	memset(&slot->outcome, 0, sizeof(slot->outcome));
	return DsaPointerIsValid(slot->command) &&
		(settings == NULL || DsaPointerIsValid(slot->settings));
}

/* There was no memory for what the worker must be told: the run is over. */
static void
write_no_memory(Entry *entry, bool to_backlog)
{
	Run		   *run = entry->run;
	RunIdentity identity;
	RunEnding	ending;

	memset(&ending, 0, sizeof(ending));
	ending.status = "failed";
	ending.reason = "could_not_start";
	ending.sqlerrcode = ERRCODE_OUT_OF_MEMORY;
	ending.elevel = ERROR;
	ending.message = "out of shared memory for the command";
	ending.detail = psprintf("The command has %zu bytes.", strlen(run->job->definition.command));
	ending.hint = "Put a long command into a procedure, and call that.";
	ending.start_time = launcher.now.wall;
	ending.end_time = launcher.now.wall;
	identify(&identity, run);
	clockwork_run_log_insert_gathered();	/* its record may be among them */
	if (entry->runid != 0 && to_backlog)
		(void) clockwork_run_log_keep(entry->runid, &identity, &ending);
	else if (entry->runid != 0)
		finish_or_restore(entry->runid, &identity, &ending);
	entry->is_over = true;
	say_later(entry, run->jobid, "failed", ending.message);
}

/* Reserve a slot for a ready run. */
static void
gather_beginning(Run *run, int slot_index)
{
	Entry	   *entry;

	clockwork_run_set_alarm(run, POLICY_NEVER);
	clockwork_run_claim_slot(run, slot_index);
	clockwork_after_announce(run);
	entry = add_entry(ENTRY_BEGIN);
	entry->run = run;
	entry->alone = run->tries > 0;
}

static void
write_beginning(Entry *entry, bool to_backlog)
{
	Run		   *run = entry->run;
	const RunSlot *slot = clockwork_shmem_slot(run->slot);
	RunIdentity identity;
	RunEnding	obstacle;
	Oid			database;
	Oid			role;
	int			pid;

	identify(&identity, run);
	entry->runid = run->runid;
	entry->is_over = find_obstacle(&run->job->definition, &database, &role, &obstacle);
	if (entry->is_over)
	{
		if (to_backlog)
			(void) clockwork_run_log_keep(run->runid, &identity, &obstacle);
		else if (run->runid != 0)
			finish_or_restore(run->runid, &identity, &obstacle);
		else if (cron_log_run)
			entry->runid = clockwork_run_log_insert_ended(&identity, &obstacle);
		say_later(entry, run->jobid, "failed", obstacle.message);
		entry->sqlerrcode = obstacle.sqlerrcode;
		return;
	}

	/* If that is known now, its end logs less; should it be another one, the end says so. */
	pid = has_worker_for(slot, database, role) ? slot->worker_pid : 0;
	if (to_backlog)
		entry->runid = clockwork_run_log_keep(run->runid, &identity,
											  &(RunEnding) {.status = "starting", .pid = pid});
	else if (run->runid != 0)
		clockwork_run_log_start(run->runid, &identity, pid);
	else if (cron_log_run)
	{
		entry->runid = clockwork_run_log_insert(&identity, pid);
		if (entry->runid == 0)
		{
			entry->is_over = true;	/* this due time has had its run */
			return;
		}
	}
	if (!fill_slot(run, entry->runid, database, role))
		write_no_memory(entry, to_backlog);
}

static void
remove_from_unrecorded(Run *run)
{
	if (run->is_unrecorded)
		dlist_delete(&run->unrecorded);
	run->is_unrecorded = false;
}

/* The record is on disk: the slot may be handed over. */
static void
confirm_beginning(Entry *entry)
{
	Run		   *run = entry->run;
	Job		   *job = run->job;

	run->runid = entry->runid;
	remove_from_unrecorded(run);
	if (!entry->is_over)
	{
		slot_set_state(clockwork_shmem_slot(run->slot), SLOT_BEGUN);
		return;
	}
	clockwork_run_release_slot(run);
	clockwork_run_take_out(run);
	if (!run->asked)
		clockwork_run_must_trim(job, run->due_time, false);
	if (entry->sqlerrcode != 0)
		clockwork_run_policy_ended(run, POLICY_FAILED, entry->sqlerrcode);
	else
	{
		/* A due time that has had its run is known to the table. */
		clockwork_run_note_outcome(job, run->due_time, AFTER_AWAITED, run->runid, NULL);
	}
	clockwork_run_destroy(run);
	clockwork_run_promote_waiting(job);
}

/* Without a record no run: it waits aside. */
static void
put_off_beginning(Run *run)
{
	clockwork_run_release_slot(run);
	remove_from_unrecorded(run);
	run->is_ahead = false;		/* its time will have come */
	run->retry_at = clockwork_run_next_try(run->tries++);
	dlist_push_tail(&launcher.held_runs, &run->unrecorded);
	run->is_held = true;
}

/* Runs that waited aside long enough are ready again. */
static void
take_up_held_runs(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &launcher.held_runs)
	{
		Run		   *run = dlist_container(Run, unrecorded, iter.cur);

		if (!clockwork_run_is_time(run->retry_at))
			continue;
		dlist_delete(&run->unrecorded);
		run->is_held = false;
		clockwork_run_make_ready(run);
	}
}

/* -- queued and skipped due times -- */

static void
write_queued(Entry *entry, bool to_backlog)
{
	RunIdentity identity;
	Run		   *run = entry->run;
	RunEnding	state = {.status = "queued"};

	entry->runid = run->runid;
	if (run->place == RUN_AWAITING)
	{
		state.reason = "waiting_for_parent";
		state.message = clockwork_after_describe(run);
	}
	identify(&identity, run);
	if (to_backlog)
		entry->runid = clockwork_run_log_keep(run->runid, &identity, &state);
	else if (run->runid != 0)
		clockwork_run_log_queue(run->runid);
	else
		entry->runid = clockwork_run_log_insert_queued(&identity, &state);
	if (entry->runid == 0)
		entry->runid = RUNID_TAKEN;
}

static void
confirm_queued(Entry *entry)
{
	Run		   *run = entry->run;
	Job		   *job = run->job;

	remove_from_unrecorded(run);
	if (entry->runid != RUNID_TAKEN)
	{
		run->runid = entry->runid;
		run->shown_awaiting = run->place == RUN_AWAITING;
		return;
	}
	/* This due time has had its run. */
	clockwork_run_destroy(run);
	clockwork_run_promote_waiting(job);
}

static void
write_skip(Entry *entry, bool to_backlog)
{
	const Skip *skip = entry->skip;
	Job		   *job = clockwork_job_list_find(skip->jobid);
	RunIdentity identity;
	RunEnding	ending;

	memset(&identity, 0, sizeof(identity));
	identity.jobid = skip->jobid;
	identity.due_time = skip->due_time;
	identity.attempt = skip->attempt;
	identity.trigger = skip->trigger;
	identity.database = skip->database;
	identity.username = job ?
		clockwork_acl_find_owner(job->definition.owner, job->definition.username) : skip->username;
	identity.command = job ? job->definition.command : NULL;
	memset(&ending, 0, sizeof(ending));
	ending.status = skip->status;
	ending.reason = skip->reason;
	ending.message = skip->message;
	if (strcmp(skip->status, "failed") == 0)
	{
		ending.elevel = ERROR;
		ending.sqlerrcode = ERRCODE_QUERY_CANCELED;
		ending.detail = skip->detail;
	}
	ending.notify = job ? job->definition.notify : NULL;
	ending.end_time = launcher.now.wall;
	if (to_backlog)
		(void) clockwork_run_log_keep(skip->runid, &identity, &ending);
	else if (skip->runid != 0)
		finish_or_restore(skip->runid, &identity, &ending);
	else
		(void) clockwork_run_log_insert_ended(&identity, &ending);
}

static void
write_late(Late *late, bool to_backlog)
{
	if (to_backlog)
		(void) clockwork_run_log_keep(late->runid, &late->identity, &late->ending);
	else
		finish_or_restore(late->runid, &late->identity, &late->ending);
}

/* A record of a job is final that no run of ours is left for. */
static void
trim_later(int64 jobid, TimestampTz due_time)
{
	Job		   *job = clockwork_job_list_find(jobid);

	if (job)
		clockwork_run_must_trim(job, due_time, false);
}

static void
put_off_skip(Skip *skip)
{
	skip->retry_at = clockwork_run_next_try(skip->tries++);
	dlist_delete(&skip->node);
	dlist_push_tail(&launcher.skips, &skip->node);
}

/* -- problems -- */

static void
write_problem(Entry *entry)
{
	Job		   *job = entry->job;
	RunIdentity identity;
	RunEnding	ending;

	if (!cron_log_run)
		return;
	memset(&identity, 0, sizeof(identity));
	identity.jobid = job->jobid;
	identity.attempt = 1;
	identity.trigger = "schedule";
	identity.database = job->definition.database;
	identity.username = clockwork_acl_find_owner(job->definition.owner, job->definition.username);
	identity.command = job->definition.command;
	memset(&ending, 0, sizeof(ending));
	ending.status = "failed";
	ending.reason = "invalid_job";
	ending.elevel = ERROR;
	ending.sqlerrcode = ERRCODE_INVALID_PARAMETER_VALUE;
	ending.message = job->problem;
	ending.detail = job->problem_detail;
	ending.notify = job->definition.notify;
	ending.start_time = launcher.now.wall;
	ending.end_time = launcher.now.wall;
	clockwork_run_log_problem(&identity, &ending);
}

static void
confirm_problem(Job *job)
{
	job->problem_reported = true;
	ereport(WARNING,
			(errmsg("cron job " INT64_FORMAT " cannot run: %s", job->jobid, job->problem),
			 job->problem_detail ? errdetail("%s", job->problem_detail) : 0));
}

static void
gather_problem(Job *job, void *arg)
{
	if (job->problem && !job->problem_reported && job->definition.active)
		add_entry(ENTRY_PROBLEM)->job = job;
}

/* -- all of them -- */

/* Slots that a pass had claimed when an unforeseen error ended it. */
static void
give_back_claims(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];

		if (run == NULL || slot_state(clockwork_shmem_slot(i)) != SLOT_CLAIMED)
			continue;
		clockwork_run_release_slot(run);
		if (run->job && run->is_ahead)
		{
			clockwork_job_list_make_due(run->job, run->due_time);
			clockwork_run_forget_ahead(run);
		}
		else if (run->job)
			clockwork_run_make_ready(run);
		else
			clockwork_run_destroy(run);
	}
}

/*
 * Give slots to the ready runs, first come, first served.  Those for which
 * there are only workers of other roles and databases make these leave, and
 * have their slots soon.
 */
static void
gather_beginnings(void)
{
	Run		  **misfits = MemoryContextAlloc(launcher.pass_context,
											 sizeof(Run *) * launcher.panel->nslots);
	int			count = 0;
	Run		   *run;

	while (count < launcher.panel->nslots && clockwork_run_has_free_slot() &&
		   (run = clockwork_run_take_ready()) != NULL)
	{
		int			slot = clockwork_run_choose_slot(run);

		if (slot < 0)
		{
			misfits[count++] = run;
			continue;
		}
		gather_beginning(run, slot);
		launcher.handed_on_at = launcher.now.monotonic;
	}
	for (int i = 0; i < count; i++)
		clockwork_run_return_ready(misfits[i]);
	clockwork_run_dismiss_idle(count);
}

static bool
is_history_locked(void)
{
	return launcher.now.monotonic < launcher.history_locked_until;
}

static void
gather_entries(void)
{
	dlist_iter	iter;
	Run		   *run;
	int			room = RECORDS_PER_PASS;

	nentries = 0;
	give_back_claims();
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		if (launcher.slot_runs[i] && has_ended(launcher.slot_runs[i]))
		{
			clockwork_run_log_start_of(launcher.slot_runs[i]);
			add_entry(ENTRY_ENDING)->run = launcher.slot_runs[i];
			launcher.server_stops |= clockwork_shmem_slot(i)->outcome.by_shutdown;
		}
		else if (launcher.slot_runs[i] && should_show_running(launcher.slot_runs[i]))
			add_entry(ENTRY_RUNNING)->run = launcher.slot_runs[i];
	}
	dlist_foreach(iter, &launcher.late_endings)
	{
		Late	   *late = dlist_container(Late, node, iter.cur);

		if (clockwork_run_is_time(late->retry_at))
		{
			Entry	   *entry = add_entry(ENTRY_LATE);

			entry->late = late;
			entry->alone = true;
		}
	}
	dlist_foreach(iter, &launcher.retirees)
	{
		Retiree    *retiree = dlist_container(Retiree, node, iter.cur);

		if (clockwork_run_is_time(retiree->retry_at))
		{
			Entry	   *entry = add_entry(ENTRY_RETIRE);

			entry->retiree = retiree;
			entry->alone = true;
		}
	}

	take_up_held_runs();
	if (launcher.may_begin && !launcher.is_leaving && !launcher.server_stops)
	{
		gather_beginnings();
		if (!is_history_locked())
			clockwork_start_ahead_begin(gather_beginning);
	}

	/* Those that are left: a beginning may have taken a record over. */
	dlist_foreach(iter, &launcher.withdrawals)
	{
		Withdrawal *withdrawal = dlist_container(Withdrawal, node, iter.cur);

		if (clockwork_run_is_time(withdrawal->retry_at))
		{
			Entry	   *entry = add_entry(ENTRY_WITHDRAWAL);

			entry->withdrawal = withdrawal;
			entry->alone = withdrawal->tries > 0;
		}
	}

	/* Those ready runs that got no slot wait visibly, if it lasts. */
	for (size_t i = 1; i <= launcher.ready.count; i++)
		clockwork_run_must_record_if_it_lasts(run_of_rank(launcher.ready.entries[i]));
	dlist_foreach(iter, &launcher.queued_runs)
	{
		run = dlist_container(Run, unrecorded, iter.cur);

		if (run->slot >= 0)
			continue;			/* it begins in this very pass */
		if (room-- <= 0)
			break;
		add_entry(ENTRY_QUEUED)->run = run;
	}
	dlist_foreach(iter, &launcher.skips)
	{
		Skip	   *skip = dlist_container(Skip, node, iter.cur);
		Entry	   *entry;

		if (!clockwork_run_is_time(skip->retry_at))
			continue;
		if (room-- <= 0)
			break;
		entry = add_entry(ENTRY_SKIP);
		entry->skip = skip;
		entry->alone = skip->tries > 0;
	}
	if (launcher.problems_pending)
		clockwork_job_list_visit(gather_problem, NULL);
	launcher.problems_pending = false;
}

/* Can the backlog take it?  What is no record of a run is not for it. */
static bool
may_go_to_backlog(const Entry *entry)
{
	switch (entry->kind)
	{
		case ENTRY_ENDING:
			return entry->run->runid != 0;
		case ENTRY_BEGIN:
			return entry->run->runid != 0 || cron_log_run;
		case ENTRY_LATE:
		case ENTRY_QUEUED:
		case ENTRY_SKIP:
			return true;
		case ENTRY_RUNNING:
		case ENTRY_PROBLEM:
		case ENTRY_RETIRE:
		case ENTRY_WITHDRAWAL:
			break;
	}
	return false;
}

static void
write_entry(Entry *entry, bool to_backlog)
{
	switch (entry->kind)
	{
		case ENTRY_ENDING:
			write_ending(entry, to_backlog);
			break;
		case ENTRY_LATE:
			write_late(entry->late, to_backlog);
			break;
		case ENTRY_RUNNING:
			write_running(entry);
			break;
		case ENTRY_BEGIN:
			write_beginning(entry, to_backlog);
			break;
		case ENTRY_QUEUED:
			write_queued(entry, to_backlog);
			break;
		case ENTRY_SKIP:
			write_skip(entry, to_backlog);
			break;
		case ENTRY_PROBLEM:
			write_problem(entry);
			break;
		case ENTRY_RETIRE:
			if (entry->retiree->pause_reason)
				clockwork_catalog_pause_job(entry->retiree->jobid, entry->retiree->pause_reason);
			else
				clockwork_catalog_deactivate_job(entry->retiree->jobid);
			break;
		case ENTRY_WITHDRAWAL:
			clockwork_run_log_withdraw(entry->withdrawal->runid);
			break;
	}
}

/* It is on disk: make it true in memory. */
static void
confirm_entry(Entry *entry)
{
	entry->done = true;
	if (entry->log_line)
		ereport(LOG, (errmsg("%s", entry->log_line)));
	switch (entry->kind)
	{
		case ENTRY_ENDING:
			clockwork_run_request_note_end(entry->run->runid);
			confirm_ending(entry->run);
			break;
		case ENTRY_LATE:
			clockwork_run_request_note_end(entry->late->runid);
			trim_later(entry->late->identity.jobid, entry->late->identity.due_time);
			clockwork_run_free_late(entry->late);
			break;
		case ENTRY_RUNNING:
			confirm_running(entry->run);
			break;
		case ENTRY_BEGIN:
			if (entry->is_over && entry->runid > 0)
				clockwork_run_request_note_end(entry->runid);
			confirm_beginning(entry);
			break;
		case ENTRY_QUEUED:
			confirm_queued(entry);
			break;
		case ENTRY_SKIP:
			if (entry->skip->runid != 0)
				clockwork_run_request_note_end(entry->skip->runid);
			trim_later(entry->skip->jobid, entry->skip->due_time);
			clockwork_run_free_skip(entry->skip);
			break;
		case ENTRY_PROBLEM:
			confirm_problem(entry->job);
			break;
		case ENTRY_RETIRE:
			clockwork_run_free_retiree(entry->retiree);
			break;
		case ENTRY_WITHDRAWAL:
			clockwork_run_free_withdrawal(entry->withdrawal);
			break;
	}
}

/* The transaction failed: as before it was written. */
static void
unwrite_entry(Entry *entry)
{
	entry->runid = 0;
	entry->is_over = false;
	entry->sqlerrcode = 0;
	entry->log_line = NULL;
	if (entry->kind == ENTRY_BEGIN)
	{
		clockwork_shmem_free_text(&clockwork_shmem_slot(entry->run->slot)->command);
		clockwork_shmem_free_text(&clockwork_shmem_slot(entry->run->slot)->settings);
	}
}

/* It could be written nowhere. */
static void
put_off_entry(Entry *entry)
{
	entry->done = true;
	switch (entry->kind)
	{
		case ENTRY_ENDING:
			put_off_ending(entry->run);
			break;
		case ENTRY_LATE:
			entry->late->retry_at = clockwork_run_next_try(entry->late->tries++);
			break;
		case ENTRY_RUNNING:
			confirm_running(entry->run);
			break;
		case ENTRY_BEGIN:
			put_off_beginning(entry->run);
			break;
		case ENTRY_QUEUED:
			remove_from_unrecorded(entry->run); /* its beginning will be shown */
			entry->run->is_unrecordable = true;
			break;
		case ENTRY_SKIP:
			put_off_skip(entry->skip);
			break;
		case ENTRY_PROBLEM:
			confirm_problem(entry->job);	/* the log has it */
			break;
		case ENTRY_RETIRE:
			/* It is never due again in any case: no hurry. */
			entry->retiree->retry_at = clockwork_run_next_try(entry->retiree->tries++);
			break;
		case ENTRY_WITHDRAWAL:
			entry->withdrawal->retry_at = clockwork_run_next_try(entry->withdrawal->tries++);
			break;
	}
}

/* What one transaction is to write, and where. */
typedef struct Batch
{
	Entry	   *only;			/* NULL: all that may be written together */
	bool		to_backlog;
	bool		expects_none;	/* no due time is thought to have its record yet */
} Batch;

static bool
is_in_batch(const Batch *batch, const Entry *entry)
{
	if (batch->only)
		return entry == batch->only;
	return !entry->done && (batch->to_backlog ? may_go_to_backlog(entry) : !entry->alone);
}

/*
 * Write a batch in one transaction.  Without the extension there is nowhere to
 * write: what ended has simply ended.
 */
static void
write_batch(const Batch *batch)
{
	ExtensionObjects objects;
	ExtensionSection section;
	bool		is_there;

	clockwork_session_begin();
	is_there = clockwork_extension_find(&objects) && objects.job == launcher.job_table;
	if (is_there)
		clockwork_extension_enter(&section, objects.owner);
	else
		launcher.must_load = true;
	if (is_there && batch->expects_none)
		clockwork_run_log_expect_none(objects.job_run_details);
	for (int i = 0; i < nentries; i++)
	{
		if (!is_in_batch(batch, &entries[i]))
			continue;
		if (is_there)
			write_entry(&entries[i], batch->to_backlog);
		else
			entries[i].is_over = true;	/* nowhere to record a beginning: no run */
	}
	if (is_there)
	{
		clockwork_run_log_insert_gathered();
		clockwork_extension_leave(&section);
	}
	clockwork_session_commit();
}

/* Has this been tried in an earlier pass, and said why not? */
static bool
was_tried(const Entry *entry)
{
	switch (entry->kind)
	{
		case ENTRY_LATE:
			return true;
		case ENTRY_BEGIN:
			return entry->run->tries > 0;
		case ENTRY_SKIP:
			return entry->skip->tries > 0;
		case ENTRY_RETIRE:
			return entry->retiree->tries > 0;
		case ENTRY_WITHDRAWAL:
			return entry->withdrawal->tries > 0;
		default:
			return false;
	}
}

static bool
is_empty(const Batch *batch)
{
	for (int i = 0; i < nentries; i++)
		if (is_in_batch(batch, &entries[i]))
			return false;
	return true;
}

/*
 * What failed together is tried again one by one, and complains then.  What
 * goes on failing is worth one complaint, not one per try; and a history that
 * takes nothing is worth one now and then.
 */
static bool
is_quiet(const Batch *batch)
{
	if (batch->only == NULL || was_tried(batch->only))
		return true;
	if (batch->to_backlog)
		return false;
	if (launcher.now.monotonic < complain_at)
		return true;
	complain_at = launcher.now.monotonic + COMPLAIN_MS * 1000L;
	return false;
}

/* The same, giving back whether it worked; *sqlerrcode says why not. */
static bool
try_to_write(const Batch *batch, int *sqlerrcode)
{
	volatile bool written = false;

	if (is_empty(batch))
		return true;
	PG_TRY();
	{
		write_batch(batch);
		written = true;
	}
	PG_CATCH();
	{
		*sqlerrcode = clockwork_session_recover(launcher.pass_context, is_quiet(batch));
	}
	PG_END_TRY();
	clockwork_run_log_expect_some();

	/* What is on disk must become true for all of them: logging takes interrupts. */
	HOLD_INTERRUPTS();
	for (int i = 0; i < nentries; i++)
	{
		if (!is_in_batch(batch, &entries[i]))
			continue;
		if (!written)
			unwrite_entry(&entries[i]);
		else
			confirm_entry(&entries[i]);
	}
	RESUME_INTERRUPTS();
	return written;
}

/* A notification may be what fails: the record counts for more. */
static bool
try_without_notification(const Batch *batch, int *sqlerrcode)
{
	bool		written;

	if (!clockwork_run_log_has_notified())
		return false;
	clockwork_run_log_mute(true);
	written = try_to_write(batch, sqlerrcode);
	clockwork_run_log_mute(false);
	if (written)
		ereport(WARNING,
				(errmsg("the end of a run was recorded, but not notified")));
	return written;
}

/* Into the history, one by one: what cannot be written holds up nobody. */
static void
write_each(void)
{
	int			lock_timeouts = 0;

	for (int i = 0; i < nentries; i++)
	{
		Batch		batch = {.only = &entries[i]};
		int			sqlerrcode = 0;

		clockwork_run_log_mute(false);
		if (entries[i].done || try_to_write(&batch, &sqlerrcode) ||
			try_without_notification(&batch, &sqlerrcode))
			continue;
		if (sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && entries[i].kind != ENTRY_RETIRE &&
			++lock_timeouts >= LOCK_TIMEOUTS_PER_PASS)
		{
			launcher.history_locked_until = launcher.now.monotonic + HISTORY_LOCKED_MS * 1000L;
			return;
		}
	}
}

/* Into the backlog: all at once, or else one by one. */
static void
write_to_backlog(void)
{
	Batch		all = {.to_backlog = true};
	int			sqlerrcode;

	if (is_empty(&all))
		return;
	launcher.has_backlog = true;
	if (try_to_write(&all, &sqlerrcode))
		return;
	for (int i = 0; i < nentries; i++)
	{
		Batch		batch = {.only = &entries[i], .to_backlog = true};

		if (!entries[i].done && may_go_to_backlog(&entries[i]))
			(void) try_to_write(&batch, &sqlerrcode);
	}
}

static bool
is_anything_left(void)
{
	for (int i = 0; i < nentries; i++)
		if (!entries[i].done)
			return true;
	return false;
}

/* All that may be written together; false if it failed.  After a restart, due times can have their record. */
static bool
write_together(void)
{
	Batch		batch = {.expects_none = true};
	int			sqlerrcode;

	if (try_to_write(&batch, &sqlerrcode))
		return true;
	if (sqlerrcode != ERRCODE_UNIQUE_VIOLATION)
		return false;
	batch.expects_none = false;
	return try_to_write(&batch, &sqlerrcode);
}

/* -- the pace in a burst -- */

/* Is there anything that waits for nothing else but being written? */
static bool
is_anything_urgent(void)
{
	dlist_iter	iter;

	if (launcher.problems_pending || !dlist_is_empty(&launcher.queued_runs))
		return true;
	dlist_foreach(iter, &launcher.skips)
		if (dlist_container(Skip, node, iter.cur)->retry_at <= launcher.now.monotonic)
			return true;
	dlist_foreach(iter, &launcher.late_endings)
		if (dlist_container(Late, node, iter.cur)->retry_at <= launcher.now.monotonic)
			return true;
	dlist_foreach(iter, &launcher.held_runs)
		if (dlist_container(Run, unrecorded, iter.cur)->retry_at <= launcher.now.monotonic)
			return true;
	dlist_foreach(iter, &launcher.withdrawals)
		if (dlist_container(Withdrawal, node, iter.cur)->retry_at <= launcher.now.monotonic)
			return true;
	for (int i = 0; i < launcher.panel->nslots; i++)
		if (launcher.slot_runs[i] && should_show_running(launcher.slot_runs[i]))
			return true;
	return false;
}

static int
count_ended(void)
{
	int			count = 0;

	for (int i = 0; i < launcher.panel->nslots; i++)
		if (launcher.slot_runs[i] && has_ended(launcher.slot_runs[i]))
			count++;
	return count;
}

/*
 * More runs wait than there are slots: what ends and begins within a moment
 * shares one transaction, and one flush, until two thirds of the slots would have
 * their share in it.  The launcher wakes up when the moment is over.
 */
static bool
may_come_together(void)
{
	int			enough = Max(launcher.panel->nslots * 2 / 3, 1);
	int			free_slots = clockwork_run_count_free_slots();

	return launcher.may_begin && !launcher.is_leaving &&
		launcher.ready.count > free_slots && free_slots + count_ended() < enough &&
		!clockwork_run_is_time(written_at + PACE_MS * 1000L);
}

void
clockwork_bookkeeping_write(void)
{
	if (!is_anything_urgent() && may_come_together())
		return;
	gather_entries();
	if (nentries > 0)
		written_at = launcher.now.monotonic;
	if (!is_history_locked())
	{
		int64		began = clockwork_clock_read().monotonic;

		if (write_together() && nentries > 0)
			clockwork_start_ahead_note_write(clockwork_clock_read().monotonic - began);
	}
	if (!is_anything_left())
		return;

	/* What follows waits for nobody long: others may be due. */
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT_SHORT);
	if (!is_history_locked())
		write_each();
	write_to_backlog();
	for (int i = 0; i < nentries; i++)
		if (!entries[i].done)
			put_off_entry(&entries[i]);
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT);
}

bool
clockwork_bookkeeping_is_due(void)
{
	if (is_anything_urgent())
		return true;
	if (may_come_together())
		return false;
	return count_ended() > 0 ||
		(launcher.may_begin && launcher.ready.count > 0 && clockwork_run_has_free_slot());
}
