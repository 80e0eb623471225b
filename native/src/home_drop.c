/*
 * Dropping the home database, to which the launcher is connected.
 *
 * DROP DATABASE ends the server's own maintenance in that database and waits
 * five seconds for everybody else to leave.  So the session that drops the home
 * database ends the launcher; the postmaster starts the next one a second
 * later.  That one waits for the lock that the session holds by then, and finds
 * the database gone, or still there if it was not dropped after all.
 *
 * The flag that PostgreSQL 19 has for this, BGWORKER_INTERRUPTIBLE, is not for
 * us: a worker that is ended by it is never started again, also when its
 * database was only renamed, moved or copied.
 */
#include "postgres.h"

#include "compat.h"
#include "guc.h"
#include "home_drop.h"
#include "shmem.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"

static object_access_hook_type previous_access_hook = NULL;

/*
 * object_access_hook: called for a database when its owner has been told from
 * others and the lock is held that keeps new sessions out, before those that
 * are there are counted.
 */
static void
notice_drop(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, class_id, object_id, sub_id, arg);

	/* The database of this session cannot be dropped. */
	if (access != OAT_DROP || class_id != DatabaseRelationId || object_id == MyDatabaseId ||
		object_id != get_database_oid(cron_database_name, true))
		return;
	if (clockwork_shmem_end_launcher())
		ereport(LOG,
				(errmsg("pg_clockwork launcher leaves database \"%s\", which is about to be dropped",
						cron_database_name)));
}

void
clockwork_home_drop_install(void)
{
	previous_access_hook = object_access_hook;
	object_access_hook = notice_drop;
}
