/*
 * The worker: attach to a slot, connect, run the command, leave the outcome.
 *
 * It is told its slot and the generation of the claim; if the slot has moved
 * on, it was started for nothing and leaves without a word.  It connects by
 * OID as the job's role, so the server itself checks once more that the
 * database exists and accepts connections and that the role may log in and
 * connect.  Whatever ends it, an outcome is left in the slot: by the ordinary
 * path, by the error path, or (FATAL, termination) by an exit callback.  What
 * has committed by then succeeded, whatever came after.
 *
 * A worker may also be started before there is a run for it (start_ahead.c): it
 * connects, and waits for one.  A run that was begun ahead waits for its instant
 * here, by a clock of microseconds, and can be taken back until then.
 *
 * A worker whose run succeeded and left nothing behind (reuse.c) stays for a
 * while, to take another run of its role and database from the same slot.  It
 * waits for that without a transaction, and leaves at once when it is told to,
 * when the configuration changes or when a new session would be another one.
 *
 * Between attach and report the slot's outcome belongs to this process alone.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "clock.h"
#include "execute.h"
#include "guc.h"
#include "own_record.h"
#include "reuse.h"
#include "run_settings.h"
#include "server.h"
#include "shmem.h"
#include "worker.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* The slot of this process, from attach to report. */
static RunSlot *my_slot = NULL;

/* The slot that it lives in, and how many runs it has served. */
static RunSlot *home = NULL;
static int	runs_served = 0;

/* How far its command has got. */
static ExecuteResult progress;
static bool own_record_written = false;
static bool is_connected = false;

/* What a FATAL error said: it cannot be caught, and ends this process. */
static emit_log_hook_type previous_log_hook = NULL;
static ErrorData last_words;
static bool have_last_words = false;

/* The beginning of a text, at most `most` bytes, and a word that it is cut. */
static dsa_pointer
keep_beginning(const char *text, Size length, int most)
{
	int			shown = pg_mbcliplen(text, (int) Min(length, (Size) INT_MAX), most);
	char	   *cut = palloc_extended(shown + 64, MCXT_ALLOC_NO_OOM);
	dsa_pointer kept;

	if (cut == NULL)
		return InvalidDsaPointer;
	memcpy(cut, text, shown);
	snprintf(cut + shown, 64, "... (cut, %zu bytes in all)", length);
	kept = clockwork_shmem_keep_text(cut, strlen(cut));
	pfree(cut);
	return kept;
}

/* Keep an error's text for the record, up to CLOCKWORK_MAX_TEXT bytes of it. */
static dsa_pointer
keep_error_text(const char *text)
{
	Size		length;
	dsa_pointer kept;

	if (text == NULL)
		return InvalidDsaPointer;
	length = strlen(text);
	kept = length > CLOCKWORK_MAX_TEXT ?
		keep_beginning(text, length, CLOCKWORK_MAX_TEXT) :
		clockwork_shmem_keep_text(text, length);

	/* Rather a piece of the truth than none. */
	if (!DsaPointerIsValid(kept) && length > 1024)
		kept = keep_beginning(text, length, 1024);
	return kept;
}

/* The texts are kept one after the other: what comes first is the most needed. */
static void
describe_error(SlotOutcome *outcome, const ErrorData *error)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->elevel = error->elevel;
	outcome->sqlerrcode = error->sqlerrcode;

	/* statement_timeout and its like have the same SQLSTATE, but are errors. */
	outcome->is_cancel = error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		(error->sqlerrcode == ERRCODE_QUERY_CANCELED && error->message_id &&
		 strcmp(error->message_id, "canceling statement due to user request") == 0);
	outcome->tag = CMDTAG_UNKNOWN;
	outcome->encoding = GetDatabaseEncoding();
	if (error->message)
	{
		Size		length = strlen(error->message);
		int			shown = pg_mbcliplen(error->message, (int) Min(length, (Size) INT_MAX),
										 CLOCKWORK_NOTE_SIZE - 1);

		memcpy(outcome->note, error->message, shown);
		outcome->note[shown] = '\0';
	}
	outcome->message = keep_error_text(error->message);
	outcome->detail = keep_error_text(error->detail);
	outcome->hint = keep_error_text(error->hint);
	outcome->context = keep_error_text(error->context);
}

static void
describe_success(SlotOutcome *outcome)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->succeeded = true;
	outcome->is_recorded = own_record_written;
	outcome->tag = progress.tag;
	outcome->rows = progress.rows;
	outcome->has_rows = progress.has_rows;
	outcome->encoding = GetDatabaseEncoding();
}

/* Publish the outcome.  From here on the slot is the launcher's again. */
static void
report(bool stays)
{
	RunSlot    *slot = my_slot;

	my_slot = NULL;
	slot->stays = stays;
	slot->end_time = GetCurrentTimestamp();
	slot_set_state(slot, SLOT_ENDED);
	clockwork_shmem_wake_launcher();
}

static char *
copy_words(const char *text)
{
	return text ? strdup(text) : NULL;
}

/* Note what ends this process.  Without memory, the rest must do. */
static void
note_last_words(const ErrorData *error)
{
	have_last_words = true;
	last_words.elevel = error->elevel;
	last_words.sqlerrcode = error->sqlerrcode;
	last_words.message = copy_words(error->message);
	last_words.detail = copy_words(error->detail);
	last_words.hint = copy_words(error->hint);
	last_words.context = copy_words(error->context);
}

/*
 * emit_log_hook: overhear a FATAL error on its way to the server log; before
 * there is a session, any error is.
 */
static void
overhear(ErrorData *error)
{
	if (previous_log_hook)
		previous_log_hook(error);
	if (error->elevel >= (is_connected ? FATAL : ERROR) && my_slot && !have_last_words)
		note_last_words(error);
}

/*
 * The bottom of the error context stack.  Where the settings keep FATAL errors
 * out of the server log, nobody but a context callback hears of them.
 */
static void
overhear_unlogged(void *arg)
{
	MemoryContext caller;
	ErrorData  *error;
	int			category = ERRCODE_TO_CATEGORY(geterrcode());

	if (clockwork_log_level() <= FATAL || my_slot == NULL || have_last_words ||
		category == ERRCODE_SUCCESSFUL_COMPLETION || category == ERRCODE_WARNING)
		return;
	caller = MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	MemoryContextSwitchTo(caller);
	if (error->elevel >= FATAL)
		note_last_words(error);
	FreeErrorData(error);
}

/*
 * before_shmem_exit: leave an outcome if nothing else did.  An error in here
 * ends in leave_note.
 */
static void
leave_outcome(int code, Datum arg)
{
	static char unknown_end[] = "the worker ended without reporting an outcome; "
	"more details may be available in the server log";
	SlotOutcome *outcome;

	if (my_slot == NULL)
		return;
	outcome = &my_slot->outcome;
	if (progress.is_committed)
		describe_success(outcome);
	else
	{
		if (!have_last_words)
		{
			last_words.elevel = FATAL;
			last_words.sqlerrcode = ERRCODE_INTERNAL_ERROR;
			last_words.message = unknown_end;
		}
		describe_error(outcome, &last_words);
		outcome->by_shutdown = last_words.sqlerrcode == ERRCODE_ADMIN_SHUTDOWN &&
			clockwork_server_is_stopping();
	}
	report(false);
}

/* The same, after leave_outcome failed: what it has left will do. */
static void
leave_note(int code, Datum arg)
{
	if (my_slot == NULL)
		return;
	LWLockReleaseAll();
	report(false);
}

/* The run in the slot is ours from here on; false if somebody was quicker. */
static bool
take_run(RunSlot *slot)
{
	/* From the swap on, the rest of the slot is ours. */
	if (!slot_swap_state(slot, SLOT_LAUNCHED, SLOT_RUNNING))
		return false;
	slot->pid = MyProcPid;
	have_last_words = false;
	memset(&last_words, 0, sizeof(last_words));
	my_slot = slot;
	return true;
}

/* Take over the slot, with its first run or without one; false if it has moved on. */
static bool
attach(int slot_index, uint32 generation)
{
	ControlPanel *panel = clockwork_shmem_panel();
	RunSlot    *slot;
	SlotState	state;

	if (slot_index < 0 || slot_index >= panel->nslots)
		return false;
	slot = clockwork_shmem_slot(slot_index);
	state = slot_state(slot);
	if (slot->generation != generation)
		return false;
	if (state == SLOT_WARMING ? !slot_swap_state(slot, SLOT_WARMING, SLOT_CONNECTING) :
		(state != SLOT_LAUNCHED || !take_run(slot)))
		return false;
	slot->leaves = false;
	slot->dismissed = false;
	slot->latch = MyLatch;
	slot->worker_pid = MyProcPid;
	home = slot;
	before_shmem_exit(leave_note, (Datum) 0);
	before_shmem_exit(leave_outcome, (Datum) 0);
	previous_log_hook = emit_log_hook;
	emit_log_hook = overhear;
	return true;
}

/* What was checked when the job was scheduled may have changed since. */
static void
check_policy(void)
{
	if (!cron_enable_superuser_jobs && superuser())
		ereport(FATAL,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot run jobs as superuser"),
				 errdetail("Scheduling jobs as superuser is disallowed when cron.enable_superuser_jobs is set to off.")));
}

/* The command in this database's encoding, in the current memory context. */
static char *
fetch_command(void)
{
	const char *text = clockwork_shmem_text(my_slot->command);
	char	   *copy;

	if (text == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("the command was not found in shared memory")));
	copy = MemoryContextAllocHuge(CurrentMemoryContext, my_slot->command_length + 1);
	memcpy(copy, text, my_slot->command_length + 1);
	return copy;
}

/* A text of the launcher's in this database's encoding; needs a transaction. */
static char *
convert(const char *text, int encoding)
{
	return pg_any_to_server(text, strlen(text), encoding);
}

/* Everything that a session must be before its command begins. */
static char *
prepare_session(void)
{
	MemoryContext context = CurrentMemoryContext;
	char		name[NAMEDATALEN];
	const char *settings = clockwork_shmem_text(my_slot->settings);
	char	   *command;

	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	check_policy();
	snprintf(name, sizeof(name), "pg_clockwork job " INT64_FORMAT " run " INT64_FORMAT,
			 my_slot->jobid, my_slot->runid);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_CLIENT);
	clockwork_guc_show_run(my_slot->jobid, my_slot->runid, my_slot->due_time, my_slot->attempt);
	if (settings)
		clockwork_run_settings_apply(convert(settings, my_slot->encoding));
	command = convert(fetch_command(), my_slot->encoding);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return command;
}

static void
before_commit(const ExecuteResult *result)
{
	own_record_written = clockwork_own_record_write(my_slot, result);
}

/*
 * The error being handled, in the current memory context.  One whose text is
 * too long to be copied is still an error.
 */
static ErrorData *
copy_error(void)
{
	MemoryContext caller = CurrentMemoryContext;
	int			sqlerrcode = geterrcode();
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		error = CopyErrorData();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = palloc0(sizeof(ErrorData));
		error->elevel = ERROR;
		error->sqlerrcode = sqlerrcode;
		error->message = pstrdup("the error message was too long to be kept");
	}
	PG_END_TRY();
	return error;
}

/* WaitLatch knows milliseconds, and comes late rather than early. */
#define COARSE_USEC 1500

/*
 * Sleep until about that instant: never longer, maybe shorter.  Whatever sets
 * the latch ends the sleep, but for the last moment.
 */
static void
sleep_until(TimestampTz instant)
{
	int64		left = instant - GetCurrentTimestamp();

	if (left > COARSE_USEC)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (left - COARSE_USEC + 999) / 1000, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	else if (left > 0)
		pg_usleep(left);
}

/* Never early, whoever took the run how. */
static void
wait_for_instant(void)
{
	while (GetCurrentTimestamp() < my_slot->not_before)
	{
		sleep_until(my_slot->not_before);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Run the command and leave its outcome in the slot; never raises an ERROR. */
static void
run(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_clockwork run",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	memset(&progress, 0, sizeof(progress));
	own_record_written = false;
	PG_TRY();
	{
		char	   *command;

		wait_for_instant();
		command = prepare_session();

		my_slot->start_time = GetCurrentTimestamp();
		clockwork_execute(command, &progress, before_commit);
		if (progress.left_open)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("the command ended inside a transaction block, which was rolled back"),
					 errhint("End the command with COMMIT.")));
		describe_success(&my_slot->outcome);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		error = copy_error();
		debug_query_string = NULL;
		AbortOutOfAnyTransaction();
		PortalErrorCleanup();
		FlushErrorState();
		MemoryContextSwitchTo(context);

		/* A cancellation that came too late changes nothing. */
		if (progress.is_committed)
			describe_success(&my_slot->outcome);
		else
			describe_error(&my_slot->outcome, error);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
}

/* ---- staying ---- */

/* A worker without any run so far waits this long: its run is due in a moment. */
#define WARM_WAIT_MS 1000

static bool
must_leave(void)
{
	return home->dismissed || ConfigReloadPending || ProcDiePending;
}

/* May this session take another run, by what it has just done? */
static bool
may_stay(void)
{
	return my_slot->outcome.succeeded && cron_worker_idle_timeout > 0 &&
		runs_served < cron_worker_max_runs && !my_slot->fresh_session &&
		!DsaPointerIsValid(my_slot->settings) &&	/* they have become the session's own */
		!must_leave() && clockwork_reuse_is_possible();
}

/* A signal that was meant for a run is not meant for the next one. */
static void
take_interrupts(void)
{
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Wait until the slot has a run for us, and take it.  False: this session is to
 * end.
 */
static bool
wait_for_run(void)
{
	long		patience = runs_served == 0 ? Max(cron_worker_idle_timeout, WARM_WAIT_MS) :
		cron_worker_idle_timeout;
	int64		until = clockwork_clock_read().monotonic + patience * INT64CONST(1000);

	for (;;)
	{
		SlotState	state;
		long		left;

		/* Set before the state is looked at: whoever hands over looks at it. */
		if (must_leave())
			home->leaves = true;
		pg_memory_barrier();
		state = slot_state(home);
		if (state == SLOT_LAUNCHED && !home->leaves && GetCurrentTimestamp() < home->not_before)
		{
			sleep_until(home->not_before);
			if (!ProcDiePending)
				take_interrupts();
			continue;
		}
		if (state == SLOT_LAUNCHED && !home->leaves && !clockwork_reuse_is_current())
			home->leaves = true;
		if (state == SLOT_LAUNCHED && !home->leaves)
		{
			if (take_run(home))
				return true;
			continue;			/* it was taken back */
		}
		if (state == SLOT_LAUNCHED)
			(void) slot_swap_state(home, SLOT_LAUNCHED, SLOT_BEGUN);
		if (home->leaves)
			return false;

		left = (Max(until, home->wanted_until) - clockwork_clock_read().monotonic + 999) / 1000;
		if (left <= 0 && state != SLOT_CLAIMED && state != SLOT_BEGUN)
		{
			home->leaves = true;
			continue;			/* a run that has come meanwhile goes back */
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left > 0 ? left : patience, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (!ProcDiePending)
			take_interrupts();
	}
}

/*
 * Connected, and without a run: wait for the first.  False: this session is to
 * end.
 */
static bool
wait_for_first_run(void)
{
	/* What a first transaction has to look up is looked up now. */
	(void) clockwork_reuse_is_current();
	pgstat_report_activity(STATE_IDLE, NULL);
	slot_set_state(home, SLOT_IDLE);
	clockwork_shmem_wake_launcher();
	return wait_for_run();
}

void
clockwork_worker_main(Datum arg)
{
	uint64		told = (uint64) DatumGetInt64(arg);
	ErrorContextCallback listener;
	bool		stays;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach((int) (told >> 32), (uint32) told))
		return;
	listener.callback = overhear_unlogged;
	listener.arg = NULL;
	listener.previous = error_context_stack;
	error_context_stack = &listener;

	clockwork_reuse_watch();
	BackgroundWorkerInitializeConnectionByOid(home->database, home->role, 0);
	is_connected = true;
	if (cron_worker_idle_timeout > 0)
		clockwork_reuse_note_new();
	stays = my_slot != NULL || wait_for_first_run();
	while (stays)
	{
		run();
		runs_served++;

		/* Counted before it is told, so that whoever is told can see the counts. */
		pgstat_report_stat(true);
		pgstat_report_activity(STATE_IDLE, NULL);
		stays = may_stay();
		report(stays);
		if (stays)
		{
			if (!clockwork_reuse_clean())
				home->leaves = true;	/* a run that it was given goes back */
			stays = wait_for_run();
		}
	}
	home->leaves = true;
	clockwork_shmem_wake_launcher();
	error_context_stack = listener.previous;
}
