/*
 * The launcher's session: settings, transactions, and the way out of an error.
 */
#include "postgres.h"

#include "compat.h"
#include "clock.h"
#include "guc.h"
#include "session.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

static int64 last_transaction = 0;

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

	/* Plans are kept while the tables grow: always by index. */
	clockwork_session_set("enable_seqscan", "off");
	clockwork_session_set("jit", "off");
	clockwork_session_set("log_min_messages", clockwork_guc_log_min_messages());
	clockwork_session_set("application_name", "pg_clockwork launcher");
}

void
clockwork_session_begin(void)
{
	last_transaction = clockwork_clock_read().monotonic;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

void
clockwork_session_commit(void)
{
	CommitTransactionCommand();
	pgstat_report_stat(false);
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
