/*
 * The extension in this database.
 *
 * Tables are found by schema and name and must belong to the extension:
 * somebody else's cron.job is not ours to run.
 */
#include "postgres.h"

#include "compat.h"
#include "extension.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define EXTENSION_NAME "pg_clockwork"
#define SCHEMA_NAME "cron"

/* The versions of the SQL that this library works with, its own first. */
static const char *const known_versions[] = {CLOCKWORK_VERSION};

/* The tables last found, for the sections to look at. */
static ExtensionObjects last_found;

/* Nothing has been invalidated since that could have to do with them. */
static bool is_found = false;

static bool owns_transactions = false;

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

static void
forget_table(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || relation == last_found.job ||
		relation == last_found.job_run_details || relation == last_found.record_backlog)
		is_found = false;
}

static void
forget_schema(Datum arg, CLOCKWORK_CACHE_ID cache, uint32 hash)
{
	is_found = false;
}

static void
watch_invalidations(void)
{
	static bool is_watching = false;

	if (is_watching)
		return;
	is_watching = true;
	CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
}

bool
clockwork_extension_find(ExtensionObjects *objects)
{
	Oid			extension;
	Oid			schema;

	watch_invalidations();
	if (is_found && !creating_extension)
	{
		*objects = last_found;
		return true;
	}
	extension = get_extension_oid(EXTENSION_NAME, true);
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
	objects->record_backlog = find_table("record_backlog", schema, extension);
	objects->owner = find_owner(objects->job);
	if (OidIsValid(objects->job) && OidIsValid(objects->job_run_details) &&
		OidIsValid(objects->owner))
	{
		last_found = *objects;
		is_found = true;
		return true;
	}
	memset(objects, 0, sizeof(*objects));
	return false;
}

/* pg_extension.extversion; NULL if the extension is not installed. */
static char *
find_version(void)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EXTENSION_NAME));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		is_null;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(relation), &is_null);

		version = is_null ? pstrdup("") : TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return version;
}

char *
clockwork_extension_find_wrong_version(void)
{
	char	   *version = find_version();

	if (version == NULL)
		return NULL;
	for (int i = 0; i < lengthof(known_versions); i++)
		if (strcmp(version, known_versions[i]) == 0)
			return NULL;
	return version;
}

/* Is a version, made of numbers and dots, older than another? */
static bool
is_older(const char *version, const char *other)
{
	for (;;)
	{
		char	   *end;
		char	   *other_end;
		long		number = strtol(version, &end, 10);
		long		other_number = strtol(other, &other_end, 10);

		if (number != other_number)
			return number < other_number;
		if (*end != '.' || *other_end != '.')
			return *end == '\0' && *other_end == '.';
		version = end + 1;
		other = other_end + 1;
	}
}

const char *
clockwork_extension_version_hint(const char *version)
{
	if (is_older(version, CLOCKWORK_VERSION))
		return "Run ALTER EXTENSION " EXTENSION_NAME " UPDATE.";
	return "Install the library of the extension's version and restart the server.";
}

void
clockwork_extension_require(ExtensionObjects *objects)
{
	char	   *version;

	if (!clockwork_extension_find(objects))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in database \"%s\"",
						EXTENSION_NAME, get_database_name(MyDatabaseId)),
				 errhint("Run CREATE EXTENSION %s in the database named by cron.database_name.",
						 EXTENSION_NAME)));
	version = clockwork_extension_find_wrong_version();
	if (version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" has version %s, but the library that the server has loaded has version %s",
						EXTENSION_NAME, version, CLOCKWORK_VERSION),
				 errhint("%s", clockwork_extension_version_hint(version))));
}

/* Does what the function does happen with rights that the owner has anyway? */
static bool
is_trusted(Oid function, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	result = form->prosecdef || form->proowner == owner || superuser_arg(form->proowner);
	ReleaseSysCache(tuple);
	return result;
}

/* May anybody but its owner put triggers on the table? */
static bool
is_open_to_triggers(Oid table, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	bool		is_null = true;
	bool		result = false;
	Datum		value;

	if (!HeapTupleIsValid(tuple))
		return false;
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &is_null);
	if (!is_null)
	{
		Acl		   *acl = DatumGetAclP(value);

		for (int i = 0; i < ACL_NUM(acl); i++)
		{
			const AclItem *item = &ACL_DAT(acl)[i];

			if (item->ai_grantee != owner && (ACLITEM_GET_PRIVS(*item) & ACL_TRIGGER) != 0)
				result = true;
		}
	}
	ReleaseSysCache(tuple);
	return result;
}

/* Say once in this process that triggers do not fire. */
static void
report_untrusted(const char *trigger, const char *table)
{
	static bool reported = false;

	if (reported)
		return;
	reported = true;
	ereport(LOG,
			(errmsg("triggers on pg_clockwork's tables do not fire for its own changes, because of trigger \"%s\" on table \"%s\"",
					trigger, table),
			 errdetail("Its function would run with the rights of the table's owner, but belongs to another role."),
			 errhint("Drop the trigger, or let the table's owner or a superuser own its function.")));
}

/*
 * Look at the triggers of a table: is there one that we must not fire, is
 * there one that wants to fire at commit?
 */
static void
inspect_triggers(Oid table, Oid owner, ExtensionSection *section)
{
	Relation	relation;
	TriggerDesc *triggers;

	if (!OidIsValid(table))
		return;

	/* Nobody may add one between this look and what we write. */
	if (is_open_to_triggers(table, owner))
		LockRelationOid(table, RowExclusiveLock);
	relation = RelationIdGetRelation(table);
	if (!RelationIsValid(relation))
		return;
	triggers = CopyTriggerDesc(relation->trigdesc);
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		section->has_deferrable |= trigger->tgdeferrable;

		/* What the table's owner made fire always, he meant to. */
		if (trigger->tgenabled == TRIGGER_FIRES_ALWAYS || is_trusted(trigger->tgfoid, owner))
			continue;
		section->has_untrusted = true;
		report_untrusted(trigger->tgname, RelationGetRelationName(relation));
	}
	FreeTriggerDesc(triggers);
	RelationClose(relation);
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
	section->has_untrusted = false;
	section->has_deferrable = false;
	inspect_triggers(last_found.job, owner, section);
	inspect_triggers(last_found.job_run_details, owner, section);
	inspect_triggers(last_found.record_backlog, owner, section);
	if (section->has_untrusted)
		(void) set_config_option("session_replication_role", "replica",
								 PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");

	/* The server refuses to defer a trigger in a restricted operation. */
	if (owns_transactions && section->has_deferrable && !section->has_untrusted &&
		SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) < 0)
		elog(ERROR, "could not make triggers immediate");
}

void
clockwork_extension_leave(ExtensionSection *section)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish SPI");
	AtEOXact_GUC(false, section->saved_guc_level);
	SetUserIdAndSecContext(section->saved_user, section->saved_security);
}

void
clockwork_extension_own_transactions(void)
{
	owns_transactions = true;
}
