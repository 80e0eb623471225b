/*
 * May this session serve another run, without anybody being able to tell?
 *
 * DISCARD ALL undoes what a session gathers by ordinary means: settings,
 * prepared statements, cursors, advisory locks, sequence caches.  What it does
 * not undo is a reason to end instead, and cheap to notice:
 *
 *	 a library	loaded by the run: it may keep what it likes (dblink its
 *				connections, a procedural language its globals); PL/pgSQL is known
 *				to keep nothing that shows
 *	 a parameter	made up by the run: it would be empty, where a new session has none
 *	 a temporary schema	which stays when its tables are gone
 *	 memory		more than a session grows by with its caches
 *
 * And what a new session would find changed is a reason, too: role, membership
 * and database tell by invalidation, the settings of roles and databases by a
 * counter (neighbours.c), the configuration file by SIGHUP (worker.c).
 */
#include "postgres.h"

#include "compat.h"
#include "guc.h"
#include "reuse.h"
#include "shmem.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/discard.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/fmgrprotos.h"
#include "utils/guc_tables.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* A session that has grown by more is ended. */
#define MOST_GROWTH ((Size) 32 * 1024 * 1024)

static bool is_outdated = false;
static uint32 settings_seen = 0;

/* What the session was like when it was new. */
static Size library_list_size = 0;
static char *library_list = NULL;	/* names, each with its NUL, and one more */
static int	parameters = 0;
static int	parameters_awaited = 0;
static Size memory = 0;

/* What parameters took of it when they were last counted, and were as many; 0: unknown. */
static Size parameter_memory = 0;

static void
note_change(Datum arg, CLOCKWORK_CACHE_ID cache, uint32 hash)
{
	is_outdated = true;
}

void
clockwork_reuse_watch(void)
{
	settings_seen = pg_atomic_read_u32(&clockwork_shmem_panel()->settings_changes);
	CacheRegisterSyscacheCallback(AUTHOID, note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, note_change, (Datum) 0);
}

/*
 * Parameters there are, but for PL/pgSQL's; and how many of its name await it.  It
 * takes over those that the settings have, and lets nobody make up others.
 */
static int
count_parameters(int *awaited)
{
	int			found;
	struct config_generic **all = clockwork_guc_variables(&found);
	int			count = 0;

	*awaited = 0;
	for (int i = 0; i < found; i++)
		if (strncmp(all[i]->name, "plpgsql.", strlen("plpgsql.")) != 0)
			count++;
		else if (all[i]->flags & GUC_CUSTOM_PLACEHOLDER)
			(*awaited)++;
	clockwork_guc_variables_free(all);
	return count;
}

/*
 * The memory of all parameters, and nothing else; 0 if the server keeps it otherwise
 * (15).  Without the strings that describe the run, which are longer or shorter from
 * one to the next.
 */
static Size
measure_parameters(void)
{
	MemoryContextCounters counters = {0};
	MemoryContext context = TopMemoryContext->firstchild;

	while (context && strcmp(context->name, "GUCMemoryContext") != 0)
		context = context->nextchild;
	if (context == NULL)
		return 0;
	context->methods->stats(context, NULL, NULL, &counters, false);
	return counters.totalspace - counters.freespace - clockwork_guc_run_memory();
}

/*
 * One that was made up takes memory for good, 256 bytes for its record alone.  After
 * a reset and its commit, the values that a new session starts with are what is left,
 * and no run can replace one, but for the name of a role that has been reset, in 64:
 * as much memory as at the last count means as many parameters.  Counting has the
 * server list and sort them all.
 */
static bool
has_new_parameter(void)
{
	Size		now = measure_parameters();
	int			awaited;

	if (now != 0 && now == parameter_memory)
		return false;
	if (count_parameters(&awaited) != parameters || awaited > parameters_awaited)
		return true;
	parameter_memory = now;
	return false;
}

static char *
list_libraries(Size *size)
{
	char	   *list;

	*size = EstimateLibraryStateSpace();
	list = MemoryContextAllocZero(TopMemoryContext, *size);
	SerializeLibraryState(*size, list);
	return list;
}

void
clockwork_reuse_note_new(void)
{
	library_list = list_libraries(&library_list_size);
	parameters = count_parameters(&parameters_awaited);
	memory = MemoryContextMemAllocated(TopMemoryContext, true);
}

static bool
is_harmless(const char *library)
{
	const char *name = strrchr(library, '/');

	return strncmp(name ? name + 1 : library, "plpgsql" DLSUFFIX, strlen("plpgsql" DLSUFFIX)) == 0;
}

/* Libraries are added at the end of the list, and never leave it. */
static bool
has_loaded_library(void)
{
	Size		known = library_list_size - 1;	/* without the last NUL */
	char	   *library;

	if (EstimateLibraryStateSpace() == library_list_size)
		return false;
	pfree(library_list);
	library_list = list_libraries(&library_list_size);
	parameter_memory = 0;		/* it may have brought some along, in place of others */
	for (library = library_list + known; *library; library += strlen(library) + 1)
		if (!is_harmless(library))
			return true;
	return false;
}

static bool
has_temporary_schema(void)
{
	Oid			tables;
	Oid			toast;

	GetTempNamespaceState(&tables, &toast);
	return OidIsValid(tables);
}

bool
clockwork_reuse_is_possible(void)
{
	return !is_outdated && !has_temporary_schema() && !has_loaded_library() &&
		MemoryContextMemAllocated(TopMemoryContext, true) <= memory + MOST_GROWTH;
}

bool
clockwork_reuse_clean(void)
{
	DiscardStmt all = {.type = T_DiscardStmt, .target = DISCARD_ALL};

	StartTransactionCommand();
	DiscardCommand(&all, true);

	/* setseed() must not reach the next run's random(). */
	(void) DirectFunctionCall1(setseed, Float8GetDatum(pg_prng_double(&pg_global_prng_state)));
	CommitTransactionCommand();
	return !has_new_parameter();
}

bool
clockwork_reuse_is_current(void)
{
	if (is_outdated ||
		pg_atomic_read_u32(&clockwork_shmem_panel()->settings_changes) != settings_seen)
		return false;

	/* Invalidations arrive when a transaction starts. */
	StartTransactionCommand();
	CommitTransactionCommand();
	return !is_outdated;
}
