/*
 * Differences between the PostgreSQL majors we support, 15 to 19.
 *
 * Every test of PG_VERSION_NUM in this project stands here; the other files
 * are written against one interface and include this header after
 * postgres.h.
 */
#ifndef CLOCKWORK_COMPAT_H
#define CLOCKWORK_COMPAT_H

#include "postmaster/bgworker.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 200000
#error "pg_clockwork supports PostgreSQL 15 to 19"
#endif

/* A worker is told its slot and generation in one Datum. */
#ifndef USE_FLOAT8_BYVAL
#error "pg_clockwork needs a 64-bit server"
#endif

/* 18 shows a library's name and version in pg_get_loaded_modules(). */
#if PG_VERSION_NUM >= 180000
#define CLOCKWORK_MODULE_MAGIC(number) \
	PG_MODULE_MAGIC_EXT(.name = "pg_clockwork", .version = number)
#else
#define CLOCKWORK_MODULE_MAGIC(number) PG_MODULE_MAGIC
#endif

/* 18 dropped PortalRun's run_once, which was ignored since 10. */
#if PG_VERSION_NUM >= 180000
#define clockwork_portal_run(portal, receiver, qc) \
	PortalRun(portal, FETCH_ALL, true, receiver, receiver, qc)
#else
#define clockwork_portal_run(portal, receiver, qc) \
	PortalRun(portal, FETCH_ALL, true, true, receiver, receiver, qc)
#endif

/* 18 reports the plan's identifier beside the query's. */
#if PG_VERSION_NUM >= 180000
#define clockwork_report_plan_id() pgstat_report_plan_id(0, true)
#else
#define clockwork_report_plan_id() ((void) 0)
#endif

/* 16 replaced the check per kind of object by one for all. */
#if PG_VERSION_NUM >= 160000
#define clockwork_database_aclcheck(dboid, roleid, mode) \
	object_aclcheck(DatabaseRelationId, dboid, roleid, mode)
#define clockwork_function_aclcheck(funcoid, roleid, mode) \
	object_aclcheck(ProcedureRelationId, funcoid, roleid, mode)
#else
#define clockwork_database_aclcheck(dboid, roleid, mode) \
	pg_database_aclcheck(dboid, roleid, mode)
#define clockwork_function_aclcheck(funcoid, roleid, mode) \
	pg_proc_aclcheck(funcoid, roleid, mode)
#endif

/* A wait event of our own name exists from 17 on. */
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#define clockwork_wait_event_new(name) WaitEventExtensionNew(name)
#else
#include "utils/wait_event.h"
#define clockwork_wait_event_new(name) ((uint32) PG_WAIT_EXTENSION)
#endif

/* 16 keeps parameters in a hash table, and lists them in memory of its own. */
#if PG_VERSION_NUM >= 160000
#define clockwork_guc_variables(count) get_guc_variables(count)
#define clockwork_guc_variables_free(list) pfree(list)
#else
#define clockwork_guc_variables(count) (*(count) = GetNumConfigOptions(), get_guc_variables())
#define clockwork_guc_variables_free(list) ((void) (list))
#endif

/* 19 names system caches by an enum. */
#if PG_VERSION_NUM >= 190000
#define CLOCKWORK_CACHE_ID SysCacheIdentifier
#else
#define CLOCKWORK_CACHE_ID int
#endif

/* 19 has a level for each type of process. */
#if PG_VERSION_NUM >= 190000
#define clockwork_log_level() (log_min_messages[MyBackendType])
#else
#define clockwork_log_level() (log_min_messages)
#endif

#endif							/* CLOCKWORK_COMPAT_H */
