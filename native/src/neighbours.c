/*
 * What other sessions do that concerns the workers that wait for a run.
 *
 * A worker that has ended one run and waits for the next is nobody's business:
 * it must not keep a database from being dropped, copied, moved or renamed, and
 * it must notice when a new session would get other settings.  The server tells
 * neither, so the commands themselves are watched, in the session that executes
 * them:
 *
 *	 DROP, ALTER, CREATE DATABASE	send away who waits there, and go on when
 *							they have gone
 *	 ALTER ROLE, DATABASE ... SET	are counted, once before they can be seen and
 *							once after
 *
 * Nothing here decides whether a command may do what it does: the server does,
 * afterwards.
 */
#include "postgres.h"

#include "compat.h"
#include "neighbours.h"
#include "shmem.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"

/* Those who wait leave at once; longer than this nobody waits for them. */
#define LEAVE_MS 2000
#define LOOK_MS 2

static ProcessUtility_hook_type previous_hook = NULL;
static bool settings_changed = false;	/* by this transaction */

/* The database that has to be without sessions; NULL if there is none. */
static const char *
database_of_command(Node *command)
{
	ListCell   *cell;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) command)->dbname;
		case T_AlterDatabaseStmt:
			return ((AlterDatabaseStmt *) command)->dbname;
		case T_RenameStmt:
			return ((RenameStmt *) command)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) command)->subname : NULL;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst_node(DefElem, cell);

				if (strcmp(option->defname, "template") == 0 && option->arg)
					return defGetString(option);
			}
			return "template1";
		default:
			return NULL;
	}
}

/* Does a worker without a run wait in the slot, in that database? */
static bool
waits_in(RunSlot *slot, Oid database)
{
	SlotState	state = slot_state(slot);

	return slot->worker_pid != 0 && slot->database == database &&
		(state == SLOT_IDLE || state == SLOT_CONNECTING || (state == SLOT_ENDED && slot->stays)) &&
		BackendPidGetProc(slot->worker_pid) != NULL;
}

static bool
dismiss_from(Oid database)
{
	ControlPanel *panel = clockwork_shmem_panel();
	bool		found = false;

	for (int i = 0; i < panel->nslots; i++)
		if (waits_in(clockwork_shmem_slot(i), database))
		{
			clockwork_shmem_dismiss(clockwork_shmem_slot(i));
			found = true;
		}
	return found;
}

static void
make_way(const char *database_name)
{
	Oid			database = get_database_oid(database_name, true);

	if (!OidIsValid(database))
		return;
	for (int waited = 0; waited < LEAVE_MS && dismiss_from(database); waited += LOOK_MS)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
count_change(void)
{
	pg_atomic_fetch_add_u32(&clockwork_shmem_panel()->settings_changes, 1);
}

/*
 * A session that connects before the change can be seen, and finds this count
 * afterwards, knows that it is one of yesterday.
 */
static void
note_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (settings_changed)
		count_change();
	settings_changed = false;
}

static void
watch_command(PlannedStmt *statement, const char *text, bool read_only_tree,
			  ProcessUtilityContext context, ParamListInfo parameters,
			  QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	Node	   *command = statement->utilityStmt;
	const char *database_name = database_of_command(command);

	if (database_name && IsTransactionState())
		make_way(database_name);
	if (IsA(command, AlterRoleSetStmt) || IsA(command, AlterDatabaseSetStmt))
	{
		settings_changed = true;
		count_change();
	}
	if (previous_hook)
		previous_hook(statement, text, read_only_tree, context, parameters, environment,
					  receiver, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, parameters, environment,
								receiver, completion);
}

void
clockwork_neighbours_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = watch_command;
	RegisterXactCallback(note_transaction_end, NULL);
}
