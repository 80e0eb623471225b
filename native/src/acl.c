/*
 * Who may schedule what.
 *
 * These checks speak early, when a job is scheduled.  What counts is checked
 * again by the server and the worker when a run connects.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "guc.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

char *
clockwork_acl_current_user(void)
{
	return GetUserNameFromId(GetUserId(), false);
}

static bool
can_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return result;
}

void
clockwork_acl_check_login(const char *username)
{
	if (!can_log_in(get_role_oid(username, false)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" can not log in", username),
				 errdetail("Jobs may only be run by roles that have the LOGIN attribute.")));
}

void
clockwork_acl_warn_no_login(const char *username)
{
	if (!can_log_in(get_role_oid(username, false)))
		ereport(WARNING,
				(errmsg("role \"%s\" can not log in", username),
				 errdetail("Jobs may only be run by roles that have the LOGIN attribute."),
				 errhint("The job is kept; its runs will fail until the role can log in.")));
}

void
clockwork_acl_check_job(const char *username, const char *database)
{
	Oid			role = get_role_oid(username, false);
	Oid			dboid;

	if (!cron_enable_superuser_jobs && superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot schedule jobs as superuser"),
				 errdetail("Scheduling jobs as superuser is disallowed when cron.enable_superuser_jobs is set to off.")));

	dboid = get_database_oid(database, false);
	if (clockwork_database_aclcheck(dboid, role, ACL_CONNECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("User %s does not have CONNECT privilege on %s", username, database)));
}

bool
clockwork_acl_may_delete_all(Oid job_table)
{
	return pg_class_aclcheck(job_table, GetUserId(), ACL_DELETE) == ACLCHECK_OK &&
		check_enable_rls(job_table, InvalidOid, true) != RLS_ENABLED;
}

Oid
clockwork_acl_find_role(const char *username)
{
	/* A longer name is nobody's: it must not be cut to somebody's. */
	return strlen(username) < NAMEDATALEN ? get_role_oid(username, true) : InvalidOid;
}

bool
clockwork_acl_is_owner(Oid owner)
{
	return OidIsValid(owner) ? has_privs_of_role(GetUserId(), owner) : superuser();
}

char *
clockwork_acl_find_owner(Oid owner, const char *username)
{
	char	   *name = OidIsValid(owner) ? GetUserNameFromId(owner, true) : NULL;

	if (name)
		return name;
	return OidIsValid(clockwork_acl_find_role(username)) ? NULL : pstrdup(username);
}

void
clockwork_acl_check_other_database(void)
{
	Oid			types[6] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID};
	List	   *name = list_make2(makeString("cron"), makeString("schedule_in_database"));
	Oid			function = LookupFuncName(name, 6, types, true);

	if (!OidIsValid(function) ||
		clockwork_function_aclcheck(function, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, "schedule_in_database");
}
