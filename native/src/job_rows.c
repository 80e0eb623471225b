/*
 * Reading the rows of cron.job, without SQL.
 *
 * The launcher reads a row for each job that changes, and every row when it
 * starts.  A query, be it planned before, costs several times what fetching the
 * row does; and nothing here runs as anybody, so nothing has to be guarded.
 */
#include "postgres.h"

#include "compat.h"
#include "job_rows.h"
#include "zone.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

typedef enum JobColumn
{
	COLUMN_JOBID,
	COLUMN_JOBNAME,
	COLUMN_SCHEDULE,
	COLUMN_COMMAND,
	COLUMN_DATABASE,
	COLUMN_USERNAME,
	COLUMN_TIMEZONE,
	COLUMN_ACTIVE,
	COLUMN_PRIORITY,
	COLUMN_SCHEDULE_ANCHOR,
	COLUMN_ACTIVE_SINCE,
	COLUMN_PAUSED_REASON,
	COLUMN_NOTIFY,
	COLUMN_HISTORY,
	COLUMN_OWNER,
	COLUMN_INSTALLATION,
	COLUMN_SETTINGS,
	COLUMN_FRESH_SESSION,
	COLUMN_ON_OVERLAP,
	COLUMN_MAX_PARALLEL,
	COLUMN_ON_MISSED,
	COLUMN_START_DEADLINE,
	COLUMN_TIMEOUT,
	COLUMN_MAX_ATTEMPTS,
	COLUMN_RETRY_DELAY,
	COLUMN_RETRY_ON,
	COLUMN_JITTER,
	COLUMN_STARTS_AT,
	COLUMN_ENDS_AT,
	COLUMN_PAUSE_AFTER,
	COLUMN_COUNT
} JobColumn;

typedef struct Column
{
	const char *name;
	Oid			type;
	AttrNumber	number;			/* where it was last found; 0: never */
} Column;

static Column columns[COLUMN_COUNT] = {
	[COLUMN_JOBID] = {"jobid", INT8OID},
	[COLUMN_JOBNAME] = {"jobname", TEXTOID},
	[COLUMN_SCHEDULE] = {"schedule", TEXTOID},
	[COLUMN_COMMAND] = {"command", TEXTOID},
	[COLUMN_DATABASE] = {"database", TEXTOID},
	[COLUMN_USERNAME] = {"username", TEXTOID},
	[COLUMN_TIMEZONE] = {"timezone", TEXTOID},
	[COLUMN_ACTIVE] = {"active", BOOLOID},
	[COLUMN_PRIORITY] = {"priority", INT4OID},
	[COLUMN_SCHEDULE_ANCHOR] = {"schedule_anchor", TIMESTAMPTZOID},
	[COLUMN_ACTIVE_SINCE] = {"active_since", TIMESTAMPTZOID},
	[COLUMN_PAUSED_REASON] = {"paused_reason", TEXTOID},
	[COLUMN_NOTIFY] = {"notify", TEXTOID},
	[COLUMN_HISTORY] = {"history", TEXTOID},
	[COLUMN_OWNER] = {"owner", OIDOID},
	[COLUMN_INSTALLATION] = {"installation", UUIDOID},
	[COLUMN_SETTINGS] = {"settings", JSONBOID},
	[COLUMN_FRESH_SESSION] = {"fresh_session", BOOLOID},
	[COLUMN_ON_OVERLAP] = {"on_overlap", TEXTOID},
	[COLUMN_MAX_PARALLEL] = {"max_parallel", INT4OID},
	[COLUMN_ON_MISSED] = {"on_missed", TEXTOID},
	[COLUMN_START_DEADLINE] = {"start_deadline", INTERVALOID},
	[COLUMN_TIMEOUT] = {"timeout", INTERVALOID},
	[COLUMN_MAX_ATTEMPTS] = {"max_attempts", INT4OID},
	[COLUMN_RETRY_DELAY] = {"retry_delay", INTERVALOID},
	[COLUMN_RETRY_ON] = {"retry_on", TEXTARRAYOID},
	[COLUMN_JITTER] = {"jitter", INTERVALOID},
	[COLUMN_STARTS_AT] = {"starts_at", TIMESTAMPTZOID},
	[COLUMN_ENDS_AT] = {"ends_at", TIMESTAMPTZOID},
	[COLUMN_PAUSE_AFTER] = {"pause_after", INT4OID},
};

/* What a visit goes through. */
typedef struct JobTable
{
	Relation	relation;
	Oid			index;			/* on jobid alone; invalid: there is none to be used */
	Snapshot	snapshot;
	MemoryContext row_context;	/* for one row at a time */
	Datum	   *values;			/* of the row's attributes, by number - 1 */
	bool	   *nulls;
	const pg_uuid_t *installation;	/* that this is; NULL: nobody knows */
} JobTable;

static bool
is_column(TupleDesc desc, AttrNumber number, const Column *column)
{
	Form_pg_attribute attribute;

	if (number < 1 || number > desc->natts)
		return false;
	attribute = TupleDescAttr(desc, number - 1);
	return !attribute->attisdropped && attribute->atttypid == column->type &&
		strcmp(NameStr(attribute->attname), column->name) == 0;
}

/* Where each column stands, which is where it stood the last time as a rule. */
static void
find_columns(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);

	for (int i = 0; i < COLUMN_COUNT; i++)
	{
		Column	   *column = &columns[i];

		if (is_column(desc, column->number, column))
			continue;
		column->number = 1;
		while (column->number <= desc->natts && !is_column(desc, column->number, column))
			column->number++;
		if (column->number > desc->natts)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table cron.job has no column \"%s\" of type %s", column->name,
							format_type_be(column->type)),
					 errdetail("The extension's tables must stay as it made them.")));
	}
}

/* The primary key's index, unless it may lack rows that we are to see, as the planner has it. */
static Oid
find_index(Relation relation)
{
	HeapTuple	tuple;
	Form_pg_index form;
	bool		is_usable;

	list_free(RelationGetIndexList(relation));
	if (!OidIsValid(relation->rd_pkindex))
		return InvalidOid;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(relation->rd_pkindex));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	form = (Form_pg_index) GETSTRUCT(tuple);
	is_usable = form->indisvalid && form->indnkeyatts == 1 &&
		form->indkey.values[0] == columns[COLUMN_JOBID].number &&
		(!form->indcheckxmin ||
		 TransactionIdPrecedes(HeapTupleHeaderGetXmin(tuple->t_data), TransactionXmin));
	ReleaseSysCache(tuple);
	return is_usable ? relation->rd_pkindex : InvalidOid;
}

/* What cron.installation() gives where the random number is this; the last answer is kept. */
static const pg_uuid_t *
installation_of(const pg_uuid_t *id)
{
	static pg_uuid_t last_id;
	static pg_uuid_t installation;
	static bool is_known = false;

	if (!is_known || memcmp(&last_id, id, sizeof(pg_uuid_t)) != 0)
	{
		char	   *seed = psprintf("%s%u", DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))),
									MyDatabaseId);
		Datum		sum = DirectFunctionCall1(md5_text, CStringGetTextDatum(seed));

		installation = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(TextDatumGetCString(sum))));
		last_id = *id;
		is_known = true;
	}
	return &installation;
}

/* Which installation is this? */
static void
identify(JobTable *table)
{
	Oid			relid = get_relname_relid("installation_identity",
										  RelationGetNamespace(table->relation));
	Relation	relation = table_open(relid, AccessShareLock);
	AttrNumber	number = get_attnum(relid, "id");
	SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, table->snapshot, 0, NULL);
	HeapTuple	row = systable_getnext(scan);
	bool		is_null = true;
	Datum		id = 0;

	if (HeapTupleIsValid(row) && number != InvalidAttrNumber)
		id = heap_getattr(row, number, RelationGetDescr(relation), &is_null);
	table->installation = is_null ? NULL : installation_of(DatumGetUUIDP(id));
	systable_endscan(scan);
	table_close(relation, NoLock);
}

static bool
is_null(const JobTable *table, JobColumn column)
{
	return table->nulls[columns[column].number - 1];
}

/* Zero, whatever that is in its type, for NULL. */
static Datum
value_of(const JobTable *table, JobColumn column)
{
	return is_null(table, column) ? (Datum) 0 : table->values[columns[column].number - 1];
}

static char *
text_of(const JobTable *table, JobColumn column)
{
	return is_null(table, column) ? NULL : TextDatumGetCString(value_of(table, column));
}

/* A length of time in microseconds: a month has 30 days; 0 for NULL. */
static int64
interval_of(const JobTable *table, JobColumn column)
{
	return is_null(table, column) ? 0 : clockwork_interval_usec(DatumGetIntervalP(value_of(table, column)));
}

/* A bound of the due times; -infinity and infinity are none. */
static ScheduleInstant
bound_of(const JobTable *table, JobColumn column, ScheduleInstant none)
{
	TimestampTz bound = DatumGetTimestampTz(value_of(table, column));

	return is_null(table, column) || TIMESTAMP_NOT_FINITE(bound) ? none : clockwork_zone_instant(bound);
}

/* The words of an array, with a space between them. */
static char *
words_of(const JobTable *table, JobColumn column)
{
	StringInfoData words;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (is_null(table, column))
		return NULL;
	initStringInfo(&words);
	deconstruct_array(DatumGetArrayTypeP(value_of(table, column)), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			appendStringInfo(&words, "%s%s", words.len > 0 ? " " : "", TextDatumGetCString(elements[i]));
	return words.data;
}

static char *
json_of(const JobTable *table, JobColumn column)
{
	Jsonb	   *json;

	if (is_null(table, column))
		return NULL;
	json = DatumGetJsonbP(value_of(table, column));
	return JsonbToCString(NULL, &json->root, VARSIZE(json));
}

static PolicyOverlap
overlap_of(const char *word)
{
	if (strcmp(word, "skip") == 0)
		return POLICY_SKIP;
	if (strcmp(word, "replace") == 0)
		return POLICY_REPLACE;
	return strcmp(word, "parallel") == 0 ? POLICY_PARALLEL : POLICY_QUEUE;
}

static PolicyMissed
missed_of(const char *word)
{
	if (strcmp(word, "run_once") == 0)
		return POLICY_MISSED_ONCE;
	return strcmp(word, "run_all") == 0 ? POLICY_MISSED_ALL : POLICY_MISSED_SKIP;
}

static JobHistory
history_of(const char *word)
{
	if (strcmp(word, "failures") == 0)
		return HISTORY_FAILURES;
	return strcmp(word, "none") == 0 ? HISTORY_NONE : HISTORY_ALL;
}

static void
show_rules(const JobTable *table, PolicyRules *rules)
{
	clockwork_policy_defaults(rules);
	rules->priority = DatumGetInt32(value_of(table, COLUMN_PRIORITY));
	rules->on_overlap = overlap_of(text_of(table, COLUMN_ON_OVERLAP));
	rules->max_parallel = DatumGetInt32(value_of(table, COLUMN_MAX_PARALLEL));
	rules->on_missed = missed_of(text_of(table, COLUMN_ON_MISSED));
	rules->start_deadline = interval_of(table, COLUMN_START_DEADLINE);
	rules->timeout = interval_of(table, COLUMN_TIMEOUT);
	rules->max_attempts = DatumGetInt32(value_of(table, COLUMN_MAX_ATTEMPTS));
	rules->retry_delay = interval_of(table, COLUMN_RETRY_DELAY);
	rules->retry_on = words_of(table, COLUMN_RETRY_ON);
	rules->jitter = interval_of(table, COLUMN_JITTER);
	rules->starts_at = bound_of(table, COLUMN_STARTS_AT, INT64_MIN);
	rules->ends_at = bound_of(table, COLUMN_ENDS_AT, POLICY_NEVER);
	rules->pause_after = DatumGetInt32(value_of(table, COLUMN_PAUSE_AFTER));
}

/* Does the job belong to another installation than this? */
static bool
is_foreign(const JobTable *table)
{
	return table->installation == NULL || is_null(table, COLUMN_INSTALLATION) ||
		memcmp(DatumGetUUIDP(value_of(table, COLUMN_INSTALLATION)), table->installation,
			   sizeof(pg_uuid_t)) != 0;
}

static void
show_row(const JobTable *table, HeapTuple row, JobVisitor visit, void *arg)
{
	MemoryContext caller = MemoryContextSwitchTo(table->row_context);
	JobDefinition job;
	PolicyRules rules;

	heap_deform_tuple(row, RelationGetDescr(table->relation), table->values, table->nulls);
	memset(&job, 0, sizeof(job));
	job.jobid = DatumGetInt64(value_of(table, COLUMN_JOBID));
	job.name = text_of(table, COLUMN_JOBNAME);
	job.schedule = text_of(table, COLUMN_SCHEDULE);
	job.command = text_of(table, COLUMN_COMMAND);
	job.database = text_of(table, COLUMN_DATABASE);
	job.username = text_of(table, COLUMN_USERNAME);
	job.timezone = text_of(table, COLUMN_TIMEZONE);
	job.active = DatumGetBool(value_of(table, COLUMN_ACTIVE));
	job.priority = DatumGetInt32(value_of(table, COLUMN_PRIORITY));
	job.anchor = DatumGetTimestampTz(value_of(table, COLUMN_SCHEDULE_ANCHOR));
	job.active_since = DatumGetTimestampTz(value_of(table, COLUMN_ACTIVE_SINCE));
	job.paused_reason = text_of(table, COLUMN_PAUSED_REASON);
	job.is_paused = job.paused_reason != NULL;
	job.notify = text_of(table, COLUMN_NOTIFY);
	job.history = history_of(text_of(table, COLUMN_HISTORY));
	job.owner = DatumGetObjectId(value_of(table, COLUMN_OWNER));
	job.held = is_foreign(table);
	job.settings = json_of(table, COLUMN_SETTINGS);
	job.fresh_session = DatumGetBool(value_of(table, COLUMN_FRESH_SESSION));
	show_rules(table, &rules);
	job.rules = &rules;
	visit(&job, arg);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(table->row_context);
}

/* The rows that the keys ask for. */
static void
visit_rows(const JobTable *table, ScanKey keys, int nkeys, JobVisitor visit, void *arg)
{
	SysScanDesc scan = systable_beginscan(table->relation, table->index,
										  nkeys > 0 && OidIsValid(table->index),
										  table->snapshot, nkeys, keys);
	HeapTuple	row;

	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		show_row(table, row, visit, arg);
		CHECK_FOR_INTERRUPTS();
	}
	systable_endscan(scan);
}

static int
compare_jobids(const void *a, const void *b)
{
	int64		one = *(const int64 *) a;
	int64		other = *(const int64 *) b;

	return (one > other) - (one < other);
}

/* Many runs of one job may be asked for at once: its row is read once. */
static void
visit_some(const JobTable *table, const int64 *jobids, int count, JobVisitor visit, void *arg)
{
	int64	   *sorted = palloc(sizeof(int64) * count);

	memcpy(sorted, jobids, sizeof(int64) * count);
	qsort(sorted, count, sizeof(int64), compare_jobids);
	count = (int) qunique(sorted, count, sizeof(int64), compare_jobids);
	for (int i = 0; i < count; i++)
	{
		ScanKeyData key;

		ScanKeyInit(&key, columns[COLUMN_JOBID].number, BTEqualStrategyNumber, F_INT8EQ,
					Int64GetDatum(sorted[i]));
		visit_rows(table, &key, 1, visit, arg);
	}
}

static void
visit_jobs(JobTable *table, const int64 *jobids, int count, JobVisitor visit, void *arg)
{
	int			natts = RelationGetDescr(table->relation)->natts;

	find_columns(table->relation);
	table->index = find_index(table->relation);
	table->values = palloc(sizeof(Datum) * natts);
	table->nulls = palloc(sizeof(bool) * natts);
	identify(table);
	if (count < 0)
		visit_rows(table, NULL, 0, visit, arg);
	else
		visit_some(table, jobids, count, visit, arg);
}

void
clockwork_job_rows_visit(const ExtensionObjects *objects, const int64 *jobids, int count,
						 JobVisitor visit, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	JobTable	table = {0};

	table.relation = try_table_open(objects->job, AccessShareLock);
	if (table.relation == NULL)
		return;
	context = AllocSetContextCreate(caller, "pg_clockwork jobs to be read", ALLOCSET_SMALL_SIZES);
	table.row_context = AllocSetContextCreate(context, "pg_clockwork job row", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	PushActiveSnapshot(GetTransactionSnapshot());
	table.snapshot = GetActiveSnapshot();
	visit_jobs(&table, jobids, count, visit, arg);
	PopActiveSnapshot();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	table_close(table.relation, NoLock);	/* as it is, until the transaction ends */
}

/* For clockwork_job_rows_find: keep a copy of the one row. */
typedef struct FoundJob
{
	MemoryContext context;
	JobDefinition *job;
} FoundJob;

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static void
keep_job(const JobDefinition *shown, void *arg)
{
	FoundJob   *found = arg;
	MemoryContext caller = MemoryContextSwitchTo(found->context);
	PolicyRules *rules = palloc(sizeof(PolicyRules));

	*rules = *shown->rules;
	rules->retry_on = copy_text(rules->retry_on);
	found->job = palloc(sizeof(JobDefinition));
	*found->job = *shown;
	found->job->name = copy_text(shown->name);
	found->job->schedule = copy_text(shown->schedule);
	found->job->command = copy_text(shown->command);
	found->job->database = copy_text(shown->database);
	found->job->username = copy_text(shown->username);
	found->job->timezone = copy_text(shown->timezone);
	found->job->paused_reason = copy_text(shown->paused_reason);
	found->job->notify = copy_text(shown->notify);
	found->job->settings = copy_text(shown->settings);
	found->job->rules = rules;
	MemoryContextSwitchTo(caller);
}

JobDefinition *
clockwork_job_rows_find(const ExtensionObjects *objects, int64 jobid)
{
	FoundJob	found = {CurrentMemoryContext, NULL};

	clockwork_job_rows_visit(objects, &jobid, 1, keep_job, &found);
	return found.job;
}
