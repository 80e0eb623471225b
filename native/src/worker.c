/*
 * The worker: attach to a slot, connect, run the command, leave the outcome.
 *
 * It is told its slot and the generation of the claim; if the slot has moved
 * on, it was started for nothing and leaves without a word.  It connects by
 * OID as the job's role, so the server itself checks once more that the
 * database exists and accepts connections and that the role may log in and
 * connect.  Whatever ends it, an outcome is left in the slot: by the ordinary
 * path, by the error path, or (FATAL, termination) by an exit callback.
 *
 * Between attach and exit the slot's outcome belongs to this process alone.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "execute.h"
#include "guc.h"
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

/* What a FATAL error said, noted on its way to the server log. */
static emit_log_hook_type previous_log_hook = NULL;
static SlotOutcome last_words;
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
	if (length > CLOCKWORK_MAX_TEXT)
		return keep_beginning(text, length, CLOCKWORK_MAX_TEXT);
	kept = clockwork_shmem_keep_text(text, length);

	/* Rather a piece of the truth than none. */
	if (!DsaPointerIsValid(kept) && length > 1024)
		kept = keep_beginning(text, length, 1024);
	return kept;
}

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
	outcome->message = keep_error_text(error->message);
	outcome->detail = keep_error_text(error->detail);
	outcome->hint = keep_error_text(error->hint);
	outcome->context = keep_error_text(error->context);
}

static void
describe_success(SlotOutcome *outcome, const ExecuteResult *result)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->succeeded = true;
	outcome->tag = result->tag;
	outcome->rows = result->rows;
	outcome->has_rows = result->has_rows;
	outcome->encoding = GetDatabaseEncoding();
}

/* Publish the outcome.  From here on the slot is the launcher's again. */
static void
report(const SlotOutcome *outcome)
{
	RunSlot    *slot = my_slot;

	if (slot == NULL)
		return;
	my_slot = NULL;
	slot->outcome = *outcome;
	slot->end_time = GetCurrentTimestamp();
	slot_set_state(slot, SLOT_ENDED);
	clockwork_shmem_wake_launcher();
}

/* emit_log_hook: a FATAL error cannot be caught, but it can be overheard. */
static void
overhear(ErrorData *error)
{
	static bool busy = false;

	if (previous_log_hook)
		previous_log_hook(error);
	if (error->elevel != FATAL || my_slot == NULL || busy || have_last_words)
		return;
	busy = true;
	describe_error(&last_words, error);
	have_last_words = true;
	busy = false;
}

/* before_shmem_exit: leave an outcome if nothing else did. */
static void
leave_outcome(int code, Datum arg)
{
	if (my_slot == NULL)
		return;
	if (!have_last_words)
	{
		memset(&last_words, 0, sizeof(last_words));
		last_words.elevel = FATAL;
		last_words.sqlerrcode = ERRCODE_INTERNAL_ERROR;
		last_words.tag = CMDTAG_UNKNOWN;
		last_words.encoding = PG_SQL_ASCII;
		last_words.message =
			keep_error_text("the worker ended without reporting an outcome; "
							"more details may be available in the server log");
	}
	report(&last_words);
}

/* Take over the slot; false if it has moved on. */
static bool
attach(int slot_index, uint32 generation)
{
	ControlPanel *panel = clockwork_shmem_panel();
	RunSlot    *slot;

	if (slot_index < 0 || slot_index >= panel->nslots)
		return false;
	slot = clockwork_shmem_slot(slot_index);
	if (slot_state(slot) != SLOT_LAUNCHED || slot->generation != generation)
		return false;

	/* From the swap on, the rest of the slot is ours. */
	if (!slot_swap_state(slot, SLOT_LAUNCHED, SLOT_RUNNING))
		return false;
	slot->pid = MyProcPid;
	my_slot = slot;
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

static char *
convert_command(char *command, int encoding)
{
	char	   *converted;
	MemoryContext context = CurrentMemoryContext;

	if (encoding == GetDatabaseEncoding())
		return command;

	/* Finding the conversion reads catalogs. */
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	converted = pg_any_to_server(command, strlen(command), encoding);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return converted;
}

/* Run the command and describe how it ended; never raises an ERROR. */
static void
run(SlotOutcome *outcome)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_clockwork run",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		ExecuteResult result;
		char	   *command = convert_command(fetch_command(), my_slot->encoding);

		clockwork_execute(command, &result);
		if (result.left_open)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("the command ended inside a transaction block, which was rolled back"),
					 errhint("End the command with COMMIT.")));
		describe_success(outcome, &result);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		error = CopyErrorData();
		debug_query_string = NULL;
		AbortOutOfAnyTransaction();
		PortalErrorCleanup();
		FlushErrorState();
		MemoryContextSwitchTo(context);
		describe_error(outcome, error);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
}

void
clockwork_worker_main(Datum arg)
{
	uint64		told = (uint64) DatumGetInt64(arg);
	SlotOutcome outcome;
	char		name[NAMEDATALEN];

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!attach((int) (told >> 32), (uint32) told))
		return;

	BackgroundWorkerInitializeConnectionByOid(my_slot->database, my_slot->role, 0);

	StartTransactionCommand();
	check_policy();
	CommitTransactionCommand();

	snprintf(name, sizeof(name), "pg_clockwork job " INT64_FORMAT " run " INT64_FORMAT,
			 my_slot->jobid, my_slot->runid);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_CLIENT);

	my_slot->start_time = GetCurrentTimestamp();
	run(&outcome);

	/* Counted before it is told, so that whoever is told can see the counts. */
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	report(&outcome);
}
