/*
 * Whose the launcher's jobs are.
 *
 * A job is pinned to its role's OID, so it keeps running whatever the role is
 * called.  What its row says of the name is for people: it follows a rename
 * within half a minute, when the launcher learns of it.
 */
#include "postgres.h"

#include "compat.h"
#include "catalog.h"
#include "extension.h"
#include "job_identity.h"
#include "job_list.h"
#include "run_list.h"
#include "session.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

static bool roles_changed = true;
static int64 follow_at = 0;		/* monotonic; not before it, after a lock */
static long held_reported = 0;

/* A job whose row says a former name of its role. */
typedef struct Renamed
{
	int64		jobid;
	Oid			owner;
	char	   *username;		/* the role's name now */
} Renamed;

static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	/* May be called anywhere: no catalog access here. */
	roles_changed = true;
}

void
clockwork_job_identity_init(void)
{
	CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);
}

/* In the pass context: it outlives the transaction. */
static void
gather_renamed(Job *job, void *arg)
{
	List	  **found = arg;
	const JobDefinition *definition = &job->definition;
	char	   *name = OidIsValid(definition->owner) ?
		GetUserNameFromId(definition->owner, true) : NULL;
	MemoryContext caller;
	Renamed    *renamed;

	/* What is held may be pinned to a number from elsewhere. */
	if (name == NULL || definition->held || strcmp(name, definition->username) == 0)
		return;
	caller = MemoryContextSwitchTo(launcher.pass_context);
	renamed = palloc(sizeof(Renamed));
	renamed->jobid = job->jobid;
	renamed->owner = definition->owner;
	renamed->username = pstrdup(name);
	*found = lappend(*found, renamed);
	MemoryContextSwitchTo(caller);
}

static void
rename_one(const Renamed *renamed)
{
	ExtensionObjects objects;
	ExtensionSection section;

	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
	{
		clockwork_extension_enter(&section, objects.owner);
		if (!clockwork_catalog_rename_owner(renamed->jobid, renamed->owner, renamed->username))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the role of job " INT64_FORMAT " is being renamed", renamed->jobid)));
		clockwork_extension_leave(&section);
	}
	clockwork_session_commit();
}

/* False if it should be tried again soon. */
static bool
try_to_rename(const Renamed *renamed)
{
	volatile bool done = true;

	PG_TRY();
	{
		rename_one(renamed);
	}
	PG_CATCH();
	{
		int			sqlerrcode = geterrcode();
		bool		is_passing = sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
			sqlerrcode == ERRCODE_OBJECT_IN_USE;

		(void) clockwork_session_recover(launcher.pass_context, is_passing);
		done = !is_passing;
	}
	PG_END_TRY();
	return done;
}

static void
follow_renamed_roles(void)
{
	List	   *found = NIL;
	ListCell   *cell;

	/* Cleared first: what is renamed from here on is looked at again. */
	clockwork_session_begin();
	roles_changed = false;
	clockwork_job_list_visit(gather_renamed, &found);
	clockwork_session_commit();
	foreach(cell, found)
	{
		if (!try_to_rename(lfirst(cell)))
		{
			roles_changed = true;
			follow_at = clockwork_run_next_try(1);
		}
	}
}

static void
report_held_jobs(void)
{
	long		held = clockwork_job_list_held();

	if (held > held_reported)
		ereport(LOG,
				(errmsg("%ld jobs are held: they belong to another installation of pg_clockwork", held),
				 errdetail("They came with a restored or copied database and do not run here."),
				 errhint("To let them run here, use SELECT cron.adopt(). The view cron.held_jobs shows them.")));
	held_reported = held;
}

void
clockwork_job_identity_follow(void)
{
	report_held_jobs();
	if (roles_changed && clockwork_run_is_time(follow_at))
		follow_renamed_roles();
}
