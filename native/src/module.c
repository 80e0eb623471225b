/*
 * The library's door: what happens when the server loads it.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"
#include "guc.h"
#include "home_drop.h"
#include "launcher.h"
#include "neighbours.h"
#include "shmem.h"

#include "fmgr.h"
#include "miscadmin.h"

CLOCKWORK_MODULE_MAGIC(CLOCKWORK_VERSION);

void		_PG_init(void);

void
_PG_init(void)
{
	/* pg_upgrade runs the old and the new server: neither may run a job. */
	if (IsBinaryUpgrade)
		return;

	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_clockwork can only be loaded via shared_preload_libraries"),
				 errhint("Add pg_clockwork to the shared_preload_libraries configuration variable in postgresql.conf.")));

	clockwork_guc_define();
	clockwork_shmem_install();
	clockwork_home_drop_install();
	clockwork_neighbours_install();
	clockwork_launcher_register();
}
