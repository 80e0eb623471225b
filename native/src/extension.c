/*
 * The extension in this database.
 *
 * Tables are found by schema and name and must belong to the extension:
 * somebody else's cron.job is not ours to run.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define EXTENSION_NAME "pg_clockwork"
#define SCHEMA_NAME "cron"

static Oid
find_table(const char *name, Oid schema, Oid extension)
{
	Oid			table = get_relname_relid(name, schema);

	if (!OidIsValid(table) ||
		getExtensionOfObject(RelationRelationId, table) != extension)
		return InvalidOid;
	return table;
}

static Oid
find_owner(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

bool
clockwork_extension_find(ExtensionObjects *objects)
{
	Oid			extension = get_extension_oid(EXTENSION_NAME, true);
	Oid			schema;

	memset(objects, 0, sizeof(*objects));
	if (!OidIsValid(extension))
		return false;

	/* While CREATE or ALTER EXTENSION is at work, nothing can be relied on. */
	if (creating_extension && extension == CurrentExtensionObject)
		return false;
	schema = get_namespace_oid(SCHEMA_NAME, true);
	if (!OidIsValid(schema))
		return false;

	objects->job = find_table("job", schema, extension);
	objects->job_run_details = find_table("job_run_details", schema, extension);
	objects->owner = find_owner(objects->job);
	if (OidIsValid(objects->job) && OidIsValid(objects->job_run_details) &&
		OidIsValid(objects->owner))
		return true;
	memset(objects, 0, sizeof(*objects));
	return false;
}

void
clockwork_extension_require(ExtensionObjects *objects)
{
	if (!clockwork_extension_find(objects))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in database \"%s\"",
						EXTENSION_NAME, get_database_name(MyDatabaseId)),
				 errhint("Run CREATE EXTENSION %s in the database named by cron.database_name.",
						 EXTENSION_NAME)));
}

void
clockwork_extension_enter(ExtensionSection *section, Oid owner)
{
	GetUserIdAndSecContext(&section->saved_user, &section->saved_security);
	SetUserIdAndSecContext(owner, section->saved_security |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	section->saved_guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

void
clockwork_extension_leave(ExtensionSection *section)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish SPI");
	AtEOXact_GUC(false, section->saved_guc_level);
	SetUserIdAndSecContext(section->saved_user, section->saved_security);
}
