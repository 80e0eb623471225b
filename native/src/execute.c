/*
 * Running a command the way `psql -c` would.
 *
 * A client's command string reaches the server as one simple-Query message.
 * What the server does with it (implicit transaction blocks, transaction
 * control, per-statement timeouts, utility commands that must be top-level)
 * is described in "Message Flow, Simple Query" of PostgreSQL's protocol
 * documentation.  This file keeps those rules for a session without a client:
 * parse everything first, then analyze, plan and run statement by statement,
 * because an earlier statement may create what a later one uses.
 */
#include "postgres.h"

#include "compat.h"
#include "execute.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/ps_status.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

/* Is a transaction command open that we have to close? */
static bool transaction_open = false;

/* The command at work, or the last one. */
static ExecuteResult *progress = NULL;

/* Count transactions as they end: a command may end more than we open. */
static void
note_transaction_end(XactEvent event, void *arg)
{
	if (progress == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			progress->transactions++;
			if (progress->is_last)
				progress->is_committed = true;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			progress->transactions++;
			break;
		default:
			break;
	}
}

static void
start_statement(void)
{
	if (!transaction_open)
	{
		StartTransactionCommand();
		transaction_open = true;
	}
	if (StatementTimeout > 0)
	{
		if (!get_timeout_active(STATEMENT_TIMEOUT))
			enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	}
	else if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
}

static void
stop_statement_timeout(void)
{
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
}

static void
finish_transaction_command(void)
{
	stop_statement_timeout();
	if (transaction_open)
	{
		CommitTransactionCommand();
		transaction_open = false;
	}
}

/*
 * COPY to or from the client needs one.  The server would write to its own
 * standard output instead, so this is refused before it starts.
 */
static void
refuse_copy_with_client(Node *statement)
{
	CopyStmt   *copy;

	if (!IsA(statement, CopyStmt))
		return;
	copy = (CopyStmt *) statement;
	if (copy->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("COPY not supported"),
				 errdetail("A job has no client to copy %s.",
						   copy->is_from ? "from STDIN" : "to STDOUT"),
				 errhint("Use INSERT ... SELECT, or COPY with a server-side file or program.")));
}

/*
 * Statements that neither end a transaction nor open one, whatever they call:
 * a list of what is known, not of what is not.
 */
static bool
is_plain(List *statements)
{
	ListCell   *cell;

	foreach(cell, statements)
	{
		Node	   *statement = lfirst_node(RawStmt, cell)->stmt;

		switch (nodeTag(statement))
		{
			case T_SelectStmt:
			case T_InsertStmt:
			case T_UpdateStmt:
			case T_DeleteStmt:
			case T_MergeStmt:
			case T_CopyStmt:
			case T_TruncateStmt:
			case T_RefreshMatViewStmt:
			case T_CreateStmt:
			case T_CreateTableAsStmt:
			case T_ExplainStmt:
			case T_PrepareStmt:
			case T_ExecuteStmt:
			case T_LockStmt:
			case T_NotifyStmt:
			case T_VariableSetStmt:
			case T_VariableShowStmt:
				continue;
			default:
				return false;
		}
	}
	return true;
}

bool
clockwork_execute_is_plain(const char *command)
{
	return is_plain(pg_parse_query(command));
}

static bool
wants_logging(List *statements)
{
	ListCell   *cell;

	if (log_statement == LOGSTMT_NONE)
		return false;
	if (log_statement == LOGSTMT_ALL)
		return true;
	foreach(cell, statements)
		if (GetCommandLogLevel((Node *) lfirst(cell)) <= log_statement)
			return true;
	return false;
}

/* Run one statement to its end; the transaction command stays open. */
static void
run_statement(RawStmt *statement, const char *command, bool implicit_block,
			  QueryCompletion *completion)
{
	CommandTag	tag = CreateCommandTag(statement->stmt);
	List	   *plans;
	Portal		portal;
	DestReceiver *nowhere;
	bool		snapshot_set = false;
	MemoryContext caller = CurrentMemoryContext;

	pgstat_report_query_id(0, true);
	clockwork_report_plan_id();
	set_ps_display(GetCommandTagName(tag));

	if (IsAbortedTransactionBlockState())
	{
		bool		ends_block = IsA(statement->stmt, TransactionStmt) &&
			(((TransactionStmt *) statement->stmt)->kind == TRANS_STMT_COMMIT ||
			 ((TransactionStmt *) statement->stmt)->kind == TRANS_STMT_PREPARE ||
			 ((TransactionStmt *) statement->stmt)->kind == TRANS_STMT_ROLLBACK ||
			 ((TransactionStmt *) statement->stmt)->kind == TRANS_STMT_ROLLBACK_TO);

		if (!ends_block)
			ereport(ERROR,
					(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
					 errmsg("current transaction is aborted, commands ignored until end of transaction block")));
	}

	start_statement();
	if (implicit_block)
		BeginImplicitTransactionBlock();
	CHECK_FOR_INTERRUPTS();
	refuse_copy_with_client(statement->stmt);

	if (analyze_requires_snapshot(statement))
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		snapshot_set = true;
	}

	/* Trees must outlive a COMMIT inside CALL: not the transaction's memory. */
	MemoryContextSwitchTo(caller);
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, command,
															   NULL, 0, NULL),
							command, CURSOR_OPT_PARALLEL_OK, NULL);
	if (snapshot_set)
		PopActiveSnapshot();
	CHECK_FOR_INTERRUPTS();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, tag, plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	nowhere = CreateDestReceiver(DestNone);
	(void) clockwork_portal_run(portal, nowhere, completion);
	nowhere->rDestroy(nowhere);
	PortalDrop(portal, false);
	MemoryContextSwitchTo(caller);
}

static void
note_completion(ExecuteResult *result, const QueryCompletion *completion)
{
	result->tag = completion->commandTag;
	result->has_rows = command_tag_display_rowcount(completion->commandTag);
	result->rows = result->has_rows ? completion->nprocessed : 0;
}

static void
run_statements(List *statements, const char *command, ExecuteResult *result,
			   BeforeCommit before_commit)
{
	bool		implicit_block = list_length(statements) > 1;
	MemoryContext message_context = CurrentMemoryContext;
	ListCell   *cell;

	foreach(cell, statements)
	{
		RawStmt    *statement = lfirst_node(RawStmt, cell);
		bool		is_last = lnext(statements, cell) == NULL;
		QueryCompletion completion;
		MemoryContext statement_context;

		statement_context = AllocSetContextCreate(message_context,
												  "pg_clockwork statement",
												  ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(statement_context);
		InitializeQueryCompletion(&completion);
		run_statement(statement, command, implicit_block, &completion);
		MemoryContextSwitchTo(message_context);

		if (is_last)
		{
			if (implicit_block)
				EndImplicitTransactionBlock();
			stop_statement_timeout();
			note_completion(result, &completion);
			result->is_last = true;
			if (before_commit && !IsTransactionBlock())
				before_commit(result);
			finish_transaction_command();
		}
		else if (IsA(statement->stmt, TransactionStmt))
			finish_transaction_command();
		else
		{
			CommandCounterIncrement();
			stop_statement_timeout();	/* the next one gets its own */
		}
		MemoryContextSwitchTo(message_context);
		if (!is_last)
			note_completion(result, &completion);
		MemoryContextDelete(statement_context);
	}
}

void
clockwork_execute(const char *command, ExecuteResult *result, BeforeCommit before_commit)
{
	static bool is_watching = false;
	MemoryContext message_context = CurrentMemoryContext;
	List	   *statements;
	bool		was_logged = false;
	char		duration[32];

	if (!is_watching)
		RegisterXactCallback(note_transaction_end, NULL);
	is_watching = true;
	memset(result, 0, sizeof(*result));
	result->tag = CMDTAG_UNKNOWN;
	progress = result;
	transaction_open = false;

	SetCurrentStatementStartTimestamp();
	debug_query_string = command;
	pgstat_report_activity(STATE_RUNNING, command);

	start_statement();
	MemoryContextSwitchTo(message_context);
	statements = pg_parse_query(command);
	if (wants_logging(statements))
	{
		ereport(LOG, (errmsg("statement: %s", command), errhidestmt(true)));
		was_logged = true;
	}

	result->is_plain = is_plain(statements);
	run_statements(statements, command, result, before_commit);
	finish_transaction_command();	/* only if there was no statement at all */
	MemoryContextSwitchTo(message_context);

	switch (check_log_duration(duration, was_logged))
	{
		case 1:
			ereport(LOG, (errmsg("duration: %s ms", duration), errhidestmt(true)));
			break;
		case 2:
			ereport(LOG, (errmsg("duration: %s ms  statement: %s", duration, command),
						  errhidestmt(true)));
			break;
	}

	/*
	 * A client that disconnects inside a transaction block loses it.  So does
	 * a job, but not silently: the caller decides what to say.
	 */
	if (IsTransactionBlock())
	{
		result->left_open = true;
		result->is_committed = false;
		AbortOutOfAnyTransaction();
	}
	debug_query_string = NULL;
}
