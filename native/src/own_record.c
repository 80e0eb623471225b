/*
 * A run's record, written by the run itself.
 *
 * In the home database, the success of a command that ran in one transaction
 * is written into its record inside that transaction: either both are
 * committed or neither.  Outside it, in any other case and whenever in doubt,
 * the launcher writes it after the commit.
 *
 * The record must never be what a command fails of, or conflicts with others
 * for.  So it is written in a subtransaction whose errors are swallowed, with
 * the rights and settings of the extension and not with what the command left
 * behind; it waits for no lock on the table or the row; and it is not written
 * under SERIALIZABLE, where it could conflict with others.  Triggers on the
 * table that would fire at the commit are refused by the server, because the
 * section is a restricted operation.
 *
 * A record that is open after a crash therefore means that nothing was
 * committed, but for a transaction that was committed without its record.
 * Before that happens, the launcher is asked to note the doubt.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"
#include "own_record.h"
#include "run_log.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* What others' triggers on the table may take. */
#define MOST_MS 1000

/* How long to wait for the launcher's answer: it is no more than a pass. */
#define ANSWER_MS 2000

/* Undone by the end of the section. */
static void
set_for_section(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* In a subtransaction.  What became of the record. */
static RunRecordFound
write_record(const RunSlot *slot, const ExecuteResult *result)
{
	ExtensionObjects objects;
	ExtensionSection section;
	RunEnding	ending;
	RunRecordFound found;

	if (!clockwork_extension_find(&objects) ||
		objects.job != clockwork_shmem_panel()->job_table)
		return RECORD_MISSING;
	if (!ConditionalLockRelationOid(objects.job_run_details, RowExclusiveLock))
		return RECORD_FINAL;

	clockwork_extension_enter(&section, objects.owner);
	set_for_section("lock_timeout", "50ms");
	set_for_section("session_replication_role", "origin");
	set_for_section("row_security", "on");
	set_for_section("enable_seqscan", "off");
	set_for_section("jit", "off");
	memset(&ending, 0, sizeof(ending));
	clockwork_run_log_describe_success(&ending, result->tag, result->has_rows, result->rows);
	ending.pid = MyProcPid;
	ending.start_time = slot->start_time;
	ending.end_time = GetCurrentTimestamp();
	ending.notify = NameStr(slot->notify);
	found = clockwork_run_log_finish_unlocked(slot->runid, &ending);
	clockwork_extension_leave(&section);
	return found;
}

/*
 * The same, in a subtransaction that is undone unless the record was written.
 * After an error it may be there and open; only a cancellation is an error of the run.
 */
static RunRecordFound
try_to_write(const RunSlot *slot, const ExecuteResult *result)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	TimestampTz began = GetCurrentTimestamp();
	volatile RunRecordFound found = RECORD_FINAL;
	ErrorData  *volatile cancellation = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		enable_timeout_after(STATEMENT_TIMEOUT, MOST_MS);
		found = write_record(slot, result);
		disable_timeout(STATEMENT_TIMEOUT, false);
		if (found == RECORD_CLOSED)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		int			sqlerrcode = geterrcode();

		disable_timeout(STATEMENT_TIMEOUT, false);
		found = RECORD_FINAL;
		MemoryContextSwitchTo(caller);
		if (sqlerrcode == ERRCODE_QUERY_CANCELED &&
			GetCurrentTimestamp() - began < MOST_MS * INT64CONST(1000))
			cancellation = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (cancellation)
		ReThrowError(cancellation);
	return found;
}

/*
 * Have the launcher note, before the commit, that a crash after it would leave
 * the effects in doubt.  Goes on without an answer if there is none.
 */
static void
declare_doubt(RunSlot *slot)
{
	TimestampTz until = GetCurrentTimestamp() + ANSWER_MS * INT64CONST(1000);

	pg_atomic_write_u32(&slot->doubt, DOUBT_ASKED);
	clockwork_shmem_wake_launcher();
	while (pg_atomic_read_u32(&slot->doubt) != DOUBT_ANSWERED)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

bool
clockwork_own_record_write(RunSlot *slot, const ExecuteResult *result)
{
	if (slot->runid == 0 || MyDatabaseId != clockwork_shmem_panel()->home_database)
		return false;

	/* What commits on its own, or in several steps, is no single transaction. */
	if (result->transactions > 0 || (MyXactFlags & XACT_FLAGS_NEEDIMMEDIATECOMMIT))
		return false;

	/* Nothing was written: there is nothing that the record could miss. */
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;

	if (!XactReadOnly && !IsolationIsSerializable())
	{
		RunRecordFound found = try_to_write(slot, result);

		if (found == RECORD_CLOSED)
			return true;

		/* The command itself has deleted it: nobody can find it open. */
		if (found == RECORD_MISSING)
			return false;
	}

	/* Only what would otherwise be taken for uncommitted needs a word. */
	if (result->is_plain)
		declare_doubt(slot);
	return false;
}
