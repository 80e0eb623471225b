/*
 * The launcher's session: settings, transactions, and the ways out: of an
 * error, and of the process.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "clock.h"
#include "guc.h"
#include "session.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

static int64 last_transaction = 0;

static TimeoutId patience;
static volatile sig_atomic_t is_patient = true;
static volatile sig_atomic_t is_told_to_end = false;

/* From here on, the next CHECK_FOR_INTERRUPTS ends the process.  Called by signals. */
static void
end_soon(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
lose_patience(void)
{
	is_patient = false;
	if (is_told_to_end)
		end_soon();
}

static void
note_termination(SIGNAL_ARGS)
{
	int			save_errno = errno;

	is_told_to_end = true;
	if (is_patient)
		SetLatch(MyLatch);
	else
		end_soon();
	errno = save_errno;
}

void
clockwork_session_take_termination(void)
{
	patience = RegisterTimeout(USER_TIMEOUT, lose_patience);
	pqsignal(SIGTERM, note_termination);
}

bool
clockwork_session_is_told_to_end(void)
{
	return is_told_to_end;
}

static void
be_patient_again(void)
{
	disable_timeout(patience, false);
	is_patient = true;
}

void
clockwork_session_set(const char *name, const char *value)
{
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
clockwork_session_harden(void)
{
	clockwork_session_set("role", "none");
	clockwork_session_set("search_path", "pg_catalog, pg_temp");
	clockwork_session_set("default_transaction_read_only", "off");
	clockwork_session_set("default_transaction_isolation", "read committed");
	clockwork_session_set("default_transaction_deferrable", "off");
	clockwork_session_set("session_replication_role", "origin");
	clockwork_session_set("statement_timeout", "0");
	clockwork_session_set("transaction_timeout", "0");
	clockwork_session_set("idle_in_transaction_session_timeout", "0");
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT);

	/* A missing standby must not stop the schedule. */
	clockwork_session_set("synchronous_commit", "local");

	/* Each statement is planned once, and its plan kept while the tables grow: always by index. */
	clockwork_session_set("plan_cache_mode", "force_generic_plan");
	clockwork_session_set("enable_seqscan", "off");
	clockwork_session_set("jit", "off");
	clockwork_session_set("log_min_messages", clockwork_guc_log_min_messages());
	clockwork_session_set("client_encoding", GetDatabaseEncodingName());
	clockwork_session_set("application_name", "pg_clockwork launcher");
}

void
clockwork_session_begin(void)
{
	last_transaction = clockwork_clock_read().monotonic;
	SetCurrentStatementStartTimestamp();
	enable_timeout_after(patience, SESSION_PATIENCE_MS);
	StartTransactionCommand();
}

void
clockwork_session_commit(void)
{
	CommitTransactionCommand();
	be_patient_again();
	pgstat_report_stat(false);
}

/* Without the timer of the others: it would wake the launcher once more, later. */
void
clockwork_session_take_in_invalidations(void)
{
	last_transaction = clockwork_clock_read().monotonic;
	StartTransactionCommand();
	CommitTransactionCommand();
}

int64
clockwork_session_last_transaction(void)
{
	return last_transaction;
}

int
clockwork_session_recover(MemoryContext context, bool quiet)
{
	int			sqlerrcode = geterrcode();

	HOLD_INTERRUPTS();
	disable_timeout(LOCK_TIMEOUT, false);
	disable_timeout(DEADLOCK_TIMEOUT, false);
	disable_timeout(STATEMENT_TIMEOUT, false);
	be_patient_again();
	QueryCancelPending = false;
	if (!quiet)
		EmitErrorReport();
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	PortalErrorCleanup();
	MemoryContextSwitchTo(context);
	FlushErrorState();
	RESUME_INTERRUPTS();
	return sqlerrcode;
}
