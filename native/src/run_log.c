/*
 * Writing cron.job_run_details.
 *
 * Each verb is one prepared statement, planned once per launcher.  They find
 * their row by primary key, and name every object in full.
 */
#include "postgres.h"

#include "compat.h"
#include "bulk_insert.h"
#include "run_log.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define MAX_PARAMETERS BULK_COLUMNS_MAX

/* PostgreSQL's limit for a payload, less one for the NUL. */
#define PAYLOAD_MAX 7999

/* Beyond this part of the queue used, nothing is sent. */
#define NOTIFY_QUEUE_MAX 0.9

/* One statement, prepared when it is first used. */
typedef struct Statement
{
	const char *sql;
	int			nparameters;
	Oid			types[MAX_PARAMETERS];
	SPIPlanPtr	plan;
} Statement;

/* The parameters of one execution. */
typedef BulkRow Parameters;

static void
add(Parameters *parameters, bool is_null, Datum value)
{
	Assert(parameters->count < MAX_PARAMETERS);
	parameters->values[parameters->count] = value;
	parameters->nulls[parameters->count] = is_null ? 'n' : ' ';
	parameters->count++;
}

static void
add_text(Parameters *parameters, const char *text)
{
	add(parameters, text == NULL, text ? CStringGetTextDatum(text) : (Datum) 0);
}

static void
add_time(Parameters *parameters, TimestampTz time)
{
	add(parameters, time == 0, TimestampTzGetDatum(time));
}

static void
add_int8(Parameters *parameters, int64 value, bool is_null)
{
	add(parameters, is_null, Int64GetDatum(value));
}

static void
add_int4(Parameters *parameters, int32 value, bool is_null)
{
	add(parameters, is_null, Int32GetDatum(value));
}

static void
execute(Statement *statement, Parameters *parameters)
{
	int			result;

	Assert(parameters->count == statement->nparameters);
	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->sql, statement->nparameters,
									   statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a statement on cron.job_run_details: %s",
				 SPI_result_code_string(SPI_result));
		statement->plan = plan;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_plan(statement->plan, parameters->values, parameters->nulls,
							  false, 0);
	PopActiveSnapshot();
	if (result < 0)
		elog(ERROR, "could not write cron.job_run_details: %s",
			 SPI_result_code_string(result));
}

/* The runid that RETURNING gave, or 0 if no row came back. */
static int64
returned_runid(void)
{
	bool		is_null;
	int64		runid = 0;

	if (SPI_processed > 0)
		runid = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
											1, &is_null));
	SPI_freetuptable(SPI_tuptable);
	return runid;
}

/* The WAL timeline that records go to: it changes with each promotion. */
static int32
current_timeline(void)
{
	/* Recovery is over where there is a launcher, and does not begin again. */
	return (int32) GetWALInsertionTimeLine();
}

static void
add_identity(Parameters *parameters, const RunIdentity *run)
{
	add_int8(parameters, run->jobid, run->jobid == 0);
	add_text(parameters, run->database);
	add_text(parameters, run->username);
	add_text(parameters, run->command);
	add_time(parameters, run->due_time);
	add_text(parameters, run->trigger);
	add_int4(parameters, run->attempt, false);
	add_int4(parameters, current_timeline(), false);
	add_text(parameters, run->label);
	add_text(parameters, run->requested_by);
}

#define IDENTITY_COLUMNS "jobid, database, username, command, due_time, trigger, attempt, timeline," \
	" label, requested_by"
#define IDENTITY_VALUES "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10"
#define IDENTITY_TYPES INT8OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, INT4OID, INT4OID, \
	TEXTOID, TEXTOID

/* ---- new records ---- */

/* Longer commands are inserted alone, rather than copied once more. */
#define MOST_TOGETHER 8192

/* What a new record says. */
#define NEW_COLUMNS IDENTITY_COLUMNS ", job_pid, status, reason, return_message, runid"
#define NEW_TYPES IDENTITY_TYPES, INT4OID, TEXTOID, TEXTOID, TEXTOID, INT8OID
#define INSERT_NEW "INSERT INTO cron.job_run_details (" NEW_COLUMNS ") VALUES (" IDENTITY_VALUES "," \
	" $11, $12, $13, $14, COALESCE($15, pg_catalog.nextval('cron.runid_seq')))"
#define RETURNING_RUNID " RETURNING runid"

/*
 * ON CONFLICT costs a second record in the write-ahead log for every row, against
 * what happens after a restart only.
 */
#define UNLESS_TAKEN " ON CONFLICT (jobid, due_time, attempt) DO NOTHING"

static Statement insert_plainly = {
	INSERT_NEW RETURNING_RUNID, 15, {NEW_TYPES}, NULL
};
static Statement insert_carefully = {
	INSERT_NEW UNLESS_TAKEN RETURNING_RUNID, 15, {NEW_TYPES}, NULL
};

/* Where new records are expected to have no predecessor; invalid: anywhere, they may have one. */
static Oid	expectant = InvalidOid;

/* May they be gathered there?  Asked for the first of them. */
static bool is_asked;
static bool may_gather;
static Oid	runid_sequence;

/* Gathered, and not inserted yet. */
static Parameters *gathered;
static int	ngathered;
static int	gathered_space;

void
clockwork_run_log_expect_none(Oid history)
{
	expectant = history;
	is_asked = false;
	gathered = NULL;			/* the memory is gone with its transaction */
	ngathered = 0;
	gathered_space = 0;
}

void
clockwork_run_log_expect_some(void)
{
	clockwork_run_log_expect_none(InvalidOid);
}

static bool
is_gathering(void)
{
	if (!OidIsValid(expectant))
		return false;
	if (!is_asked)
	{
		runid_sequence = get_relname_relid("runid_seq", get_rel_namespace(expectant));
		may_gather = OidIsValid(runid_sequence) && clockwork_bulk_insert_is_possible(expectant);
		is_asked = true;
	}
	return may_gather;
}

void
clockwork_run_log_insert_gathered(void)
{
	static const char *const columns[] = {
		"jobid", "database", "username", "command", "due_time", "trigger", "attempt", "timeline",
		"label", "requested_by", "job_pid", "status", "reason", "return_message", "runid"
	};
	static const Oid types[] = {NEW_TYPES};
	int			count = ngathered;

	StaticAssertStmt(lengthof(columns) == lengthof(types), "each column has a type");
	ngathered = 0;
	if (count == 1)
		execute(&insert_plainly, &gathered[0]);
	else if (count > 1)
		clockwork_bulk_insert(expectant, columns, types, gathered, count);
}

static void
gather(const Parameters *parameters)
{
	if (ngathered >= gathered_space)
	{
		gathered_space = Max(32, gathered_space * 2);
		gathered = gathered == NULL ? palloc(sizeof(Parameters) * gathered_space) :
			repalloc(gathered, sizeof(Parameters) * gathered_space);
	}
	gathered[ngathered++] = *parameters;
}

/* The runid that the new record gets, or 0 if there is one already. */
static int64
insert(const RunIdentity *run, int pid, const RunEnding *state)
{
	bool		is_short = run->command == NULL || strlen(run->command) <= MOST_TOGETHER;
	bool		waits = is_short && is_gathering();
	int64		runid = waits ? nextval_internal(runid_sequence, false) : 0;
	Parameters	parameters = {0};

	add_identity(&parameters, run);
	add_int4(&parameters, pid, pid == 0);
	add_text(&parameters, state->status);
	add_text(&parameters, state->reason);
	add_text(&parameters, state->message);
	add_int8(&parameters, runid, runid == 0);
	if (waits)
	{
		gather(&parameters);
		return runid;
	}
	execute(OidIsValid(expectant) ? &insert_plainly : &insert_carefully, &parameters);
	return returned_runid();
}

int64
clockwork_run_log_insert(const RunIdentity *run, int pid)
{
	return insert(run, pid, &(RunEnding) {.status = "starting"});
}

int64
clockwork_run_log_insert_queued(const RunIdentity *run, const RunEnding *state)
{
	return insert(run, 0, state);
}

#define QUEUE(table) \
	"UPDATE " table " SET status = 'queued', job_pid = NULL, reason = NULL, return_message = NULL" \
	" WHERE runid OPERATOR(pg_catalog.=) $1"

void
clockwork_run_log_queue(int64 runid)
{
	static Statement in_history = {QUEUE("cron.job_run_details"), 1, {INT8OID}, NULL};
	static Statement in_backlog = {QUEUE("cron.record_backlog"), 1, {INT8OID}, NULL};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	execute(&in_history, &parameters);
	if (SPI_processed == 0)
		execute(&in_backlog, &parameters);
}

static Datum
int8_array(const int64 *values, int count)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* A text of the current row, to outlive SPI; NULL for NULL. */
static char *
copy_column(HeapTuple row, TupleDesc desc, int column)
{
	char	   *text = SPI_getvalue(row, desc, column);
	char	   *copy;

	if (text == NULL)
		return NULL;
	copy = SPI_palloc(strlen(text) + 1);
	strcpy(copy, text);
	return copy;
}

LatestRecord *
clockwork_run_log_find_latest(const int64 *jobids, int njobs, TimestampTz due_time, int *count)
{
	static Statement statement = {
		"SELECT DISTINCT ON (jobid) jobid, runid, status, reason FROM"
		" (SELECT jobid, due_time, attempt, runid, status, reason, 1 AS place FROM cron.job_run_details"
		"  UNION ALL"
		"  SELECT jobid, due_time, attempt, runid, status, reason, 2 FROM cron.record_backlog) AS r"
		" WHERE jobid OPERATOR(pg_catalog.=) ANY ($1) AND due_time OPERATOR(pg_catalog.=) $2"
		" ORDER BY jobid, attempt DESC, place DESC",
		2, {INT8ARRAYOID, TIMESTAMPTZOID}, NULL
	};
	Parameters	parameters = {0};
	LatestRecord *records;

	add(&parameters, false, int8_array(jobids, njobs));
	add(&parameters, false, TimestampTzGetDatum(due_time));
	execute(&statement, &parameters);
	*count = (int) SPI_processed;
	records = SPI_palloc(sizeof(LatestRecord) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		is_null;

		records[i].jobid = DatumGetInt64(SPI_getbinval(row, desc, 1, &is_null));
		records[i].runid = DatumGetInt64(SPI_getbinval(row, desc, 2, &is_null));
		records[i].status = copy_column(row, desc, 3);
		if (records[i].status == NULL)
			records[i].status = "";
		records[i].reason = copy_column(row, desc, 4);
	}
	SPI_freetuptable(SPI_tuptable);
	return records;
}

/*
 * What return_message says: for success the command's tag, for an error the
 * text a server log would show, in pg_cron's form.
 */
static char *
return_message(const RunEnding *ending)
{
	StringInfoData text;

	if (ending->elevel == 0)
		return ending->message ? pstrdup(ending->message) : NULL;

	initStringInfo(&text);
	appendStringInfo(&text, "%s: %s", ending->elevel >= FATAL ? "FATAL" : "ERROR",
					 ending->message ? ending->message : "");
	if (ending->detail)
		appendStringInfo(&text, "\nDETAIL: %s", ending->detail);
	if (ending->hint)
		appendStringInfo(&text, "\nHINT: %s", ending->hint);
	if (ending->context)
		appendStringInfo(&text, "\nCONTEXT: %s", ending->context);
	return text.data;
}

/* ---- telling listeners ---- */

static bool is_muted = false;
static bool has_notified = false;

void
clockwork_run_log_mute(bool mute)
{
	is_muted = mute;
	has_notified = false;
}

bool
clockwork_run_log_has_notified(void)
{
	return has_notified;
}

/* What is told of a run, from its record; NULL if that is gone. */
static char *
find_payload(int64 runid)
{
	/* A job's name has no bounds; a payload has. */
	static Statement statement = {
		"SELECT pg_catalog.jsonb_build_object("
		" 'runid', d.runid, 'jobid', d.jobid, 'jobname', pg_catalog.left(j.jobname, 1000),"
		" 'database', d.database, 'username', d.username, 'due_time', d.due_time,"
		" 'attempt', d.attempt, 'trigger', d.trigger, 'label', d.label, 'status', d.status,"
		" 'reason', d.reason, 'sqlstate', d.sqlstate,"
		" 'start_time', d.start_time, 'end_time', d.end_time)::pg_catalog.text"
		" FROM cron.job_run_details d"
		" LEFT JOIN cron.job j ON j.jobid OPERATOR(pg_catalog.=) d.jobid"
		" WHERE d.runid OPERATOR(pg_catalog.=) $1",
		1, {INT8OID}, NULL
	};
	Parameters	parameters = {0};
	char	   *payload = NULL;

	add_int8(&parameters, runid, false);
	execute(&statement, &parameters);
	if (SPI_processed > 0)
		payload = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	SPI_freetuptable(SPI_tuptable);
	return payload;
}

void
clockwork_run_log_notify(int64 runid, const char *channel)
{
	char	   *payload;

	if (is_muted)
		return;
	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) > NOTIFY_QUEUE_MAX)
	{
		ereport(WARNING,
				(errmsg("the end of run " INT64_FORMAT " was not notified: the queue of notifications is nearly full",
						runid)));
		return;
	}
	payload = find_payload(runid);
	if (payload == NULL)
		return;
	if (strlen(payload) > PAYLOAD_MAX)
		payload = psprintf("{\"runid\": " INT64_FORMAT "}", runid);
	Async_Notify(channel, payload);
	has_notified = true;
}

/* Returns the runid, for the caller's convenience; 0: no record was written. */
static int64
tell(int64 runid, const RunEnding *ending)
{
	if (runid != 0 && ending->notify && ending->notify[0])
		clockwork_run_log_notify(runid, ending->notify);
	return runid;
}

/* The channel of a job; a column of what tell_each works on. */
#define CHANNEL(jobid) \
	"(SELECT j.notify FROM cron.job j WHERE j.jobid OPERATOR(pg_catalog.=) " jobid ")"

/* Tell of the records that a statement has returned: runid, status, channel. */
static void
tell_each(void)
{
	SPITupleTable *written = SPI_tuptable;
	uint64		count = SPI_processed;

	for (uint64 i = 0; i < count; i++)
	{
		bool		is_null;
		int64		runid = DatumGetInt64(SPI_getbinval(written->vals[i], written->tupdesc, 1, &is_null));
		char	   *status = SPI_getvalue(written->vals[i], written->tupdesc, 2);
		char	   *channel = SPI_getvalue(written->vals[i], written->tupdesc, 3);

		if (channel && clockwork_run_log_is_final(status))
			clockwork_run_log_notify(runid, channel);
	}
	SPI_freetuptable(written);
}

static void
add_ending(Parameters *parameters, const RunEnding *ending)
{
	add_text(parameters, ending->status);
	add_text(parameters, return_message(ending));
	add_time(parameters, ending->start_time);
	add_time(parameters, ending->end_time);
	add_int4(parameters, ending->pid, ending->pid == 0);
	add_text(parameters, ending->reason);
	add_text(parameters, ending->sqlerrcode ? unpack_sql_state(ending->sqlerrcode) : NULL);
	add_text(parameters, ending->detail);
	add_text(parameters, ending->hint);
	add_text(parameters, ending->context);
	add_text(parameters, ending->command_tag);
	add_int8(parameters, (int64) ending->rows, !ending->has_rows);
	add_text(parameters, ending->effects);
}

#define ENDING_TYPES TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, TEXTOID, \
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, TEXTOID
#define MERGED_ENDING "status = excluded.status, return_message = excluded.return_message," \
	" start_time = excluded.start_time, end_time = excluded.end_time, job_pid = excluded.job_pid," \
	" reason = excluded.reason, sqlstate = excluded.sqlstate, detail = excluded.detail," \
	" hint = excluded.hint, context = excluded.context, command_tag = excluded.command_tag," \
	" row_count = excluded.row_count, effects = excluded.effects"
#define ENDING_COLUMNS "status, return_message, start_time, end_time, job_pid, reason, sqlstate," \
	" detail, hint, context, command_tag, row_count, effects"

/* pg_cron's words for open records too: a history may have come from it. */
#define OPEN_STATUSES "'{queued,starting,running,connecting,sending}'::pg_catalog.text[]"
#define IS_OPEN "status OPERATOR(pg_catalog.=) ANY (" OPEN_STATUSES ")"
#define IN_RANGE(after, up_to) \
	"runid OPERATOR(pg_catalog.>) " after " AND runid OPERATOR(pg_catalog.<=) " up_to

void
clockwork_run_log_describe_success(RunEnding *ending, CommandTag tag, bool has_rows, uint64 rows)
{
	const char *name = GetCommandTagName(tag);

	ending->status = "succeeded";
	ending->command_tag = tag == CMDTAG_UNKNOWN ? NULL : name;
	ending->has_rows = has_rows;
	ending->rows = rows;
	if (tag == CMDTAG_UNKNOWN)
		ending->message = pstrdup("0 rows");	/* as psql shows it */
	else if (has_rows)
		ending->message = psprintf(tag == CMDTAG_INSERT ? "%s 0 " UINT64_FORMAT : "%s " UINT64_FORMAT,
								   name, rows);
	else
		ending->message = pstrdup(name);
}

#define INSERT_ENDED "INSERT INTO cron.job_run_details (" IDENTITY_COLUMNS ", " ENDING_COLUMNS ")" \
	" VALUES (" IDENTITY_VALUES "," \
	" $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"

int64
clockwork_run_log_insert_ended(const RunIdentity *run, const RunEnding *ending)
{
	static Statement plain = {
		INSERT_ENDED RETURNING_RUNID, 23, {IDENTITY_TYPES, ENDING_TYPES}, NULL
	};
	static Statement careful = {
		INSERT_ENDED UNLESS_TAKEN RETURNING_RUNID, 23, {IDENTITY_TYPES, ENDING_TYPES}, NULL
	};
	Parameters	parameters = {0};

	add_identity(&parameters, run);
	add_ending(&parameters, ending);
	execute(OidIsValid(expectant) ? &plain : &careful, &parameters);
	return tell(returned_runid(), ending);
}

#define START(table) \
	"UPDATE " table " SET status = 'starting', reason = NULL, return_message = NULL," \
	" database = $2, username = $3, command = $4, timeline = $5, job_pid = $6" \
	" WHERE runid OPERATOR(pg_catalog.=) $1"

void
clockwork_run_log_start(int64 runid, const RunIdentity *run, int pid)
{
	static Statement in_history = {
		START("cron.job_run_details"), 6, {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID}, NULL
	};
	static Statement in_backlog = {
		START("cron.record_backlog"), 6, {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	add_text(&parameters, run->database);
	add_text(&parameters, run->username);
	add_text(&parameters, run->command);
	add_int4(&parameters, current_timeline(), false);
	add_int4(&parameters, pid, pid == 0);
	execute(&in_history, &parameters);
	if (SPI_processed == 0)
		execute(&in_backlog, &parameters);
}

#define WHERE_OPEN_AND_UNLOCKED \
	" WHERE runid OPERATOR(pg_catalog.=) (SELECT d.runid FROM cron.job_run_details d" \
	"  WHERE d.runid OPERATOR(pg_catalog.=) $1" \
	"  AND d." IS_OPEN \
	"  FOR NO KEY UPDATE SKIP LOCKED)"

void
clockwork_run_log_running(int64 runid, int pid, TimestampTz start_time, bool in_doubt)
{
	static Statement statement = {
		"UPDATE cron.job_run_details SET status = 'running', job_pid = $2, start_time = $3,"
		" effects = $4" WHERE_OPEN_AND_UNLOCKED,
		4, {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	add_int4(&parameters, pid, false);
	add_time(&parameters, start_time);
	add_text(&parameters, in_doubt ? "unknown" : NULL);
	execute(&statement, &parameters);
}

/* What a record that is not open says. */
static RunRecordFound
look_at_record(int64 runid)
{
	static Statement statement = {
		"SELECT status OPERATOR(pg_catalog.=) 'succeeded' FROM"
		" (SELECT status FROM cron.job_run_details WHERE runid OPERATOR(pg_catalog.=) $1"
		"  UNION ALL SELECT status FROM cron.record_backlog WHERE runid OPERATOR(pg_catalog.=) $1) AS r",
		1, {INT8OID}, NULL
	};
	Parameters	parameters = {0};
	RunRecordFound found = RECORD_MISSING;

	add_int8(&parameters, runid, false);
	execute(&statement, &parameters);
	if (SPI_processed > 0)
	{
		bool		is_null;
		Datum		succeeded = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
											  1, &is_null);

		found = !is_null && DatumGetBool(succeeded) ? RECORD_SUCCEEDED : RECORD_FINAL;
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

#define FINISH(table) \
	"UPDATE " table " SET status = $2, return_message = $3," \
	" start_time = $4, end_time = $5, job_pid = $6, reason = $7, sqlstate = $8," \
	" detail = $9, hint = $10, context = $11, command_tag = $12, row_count = $13," \
	" effects = $14"
#define WHERE_OPEN " WHERE runid OPERATOR(pg_catalog.=) $1 AND " IS_OPEN

RunRecordFound
clockwork_run_log_finish(int64 runid, const RunEnding *ending)
{
	static Statement in_history = {
		FINISH("cron.job_run_details") WHERE_OPEN, 14, {INT8OID, ENDING_TYPES}, NULL
	};
	static Statement in_backlog = {
		FINISH("cron.record_backlog") WHERE_OPEN, 14, {INT8OID, ENDING_TYPES}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	add_ending(&parameters, ending);
	execute(&in_history, &parameters);
	if (SPI_processed > 0)
	{
		(void) tell(runid, ending);
		return RECORD_CLOSED;
	}
	execute(&in_backlog, &parameters);	/* told when it moves */
	return SPI_processed > 0 ? RECORD_CLOSED : look_at_record(runid);
}

RunRecordFound
clockwork_run_log_finish_unlocked(int64 runid, const RunEnding *ending)
{
	static Statement statement = {
		FINISH("cron.job_run_details") WHERE_OPEN_AND_UNLOCKED,
		14, {INT8OID, ENDING_TYPES}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	add_ending(&parameters, ending);
	execute(&statement, &parameters);
	if (SPI_processed == 0)
		return look_at_record(runid);
	(void) tell(runid, ending);
	return RECORD_CLOSED;
}

void
clockwork_run_log_restore(int64 runid, const RunIdentity *run, const RunEnding *ending)
{
	static Statement statement = {
		"INSERT INTO cron.job_run_details (" IDENTITY_COLUMNS ", " ENDING_COLUMNS ", runid)"
		" VALUES (" IDENTITY_VALUES ","
		" $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)"
		" ON CONFLICT DO NOTHING",
		24, {IDENTITY_TYPES, ENDING_TYPES, INT8OID}, NULL
	};
	Parameters	parameters = {0};

	add_identity(&parameters, run);
	add_ending(&parameters, ending);
	add_int8(&parameters, runid, false);
	execute(&statement, &parameters);
}

int64
clockwork_run_log_keep(int64 runid, const RunIdentity *run, const RunEnding *ending)
{
	static Statement statement = {
		"INSERT INTO cron.record_backlog AS b (runid, " IDENTITY_COLUMNS ", " ENDING_COLUMNS ")"
		" VALUES (COALESCE($1, pg_catalog.nextval('cron.runid_seq')),"
		" $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
		" $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)"
		" ON CONFLICT (runid) DO UPDATE SET " MERGED_ENDING
		" RETURNING b.runid",
		24, {INT8OID, IDENTITY_TYPES, ENDING_TYPES}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, runid == 0);
	add_identity(&parameters, run);
	add_ending(&parameters, ending);
	execute(&statement, &parameters);
	return returned_runid();
}

int
clockwork_run_log_backlog(int64 after, int64 *runids, int most)
{
	static Statement statement = {
		"SELECT runid FROM cron.record_backlog WHERE runid OPERATOR(pg_catalog.>) $1"
		" ORDER BY runid LIMIT $2",
		2, {INT8OID, INT4OID}, NULL
	};
	Parameters	parameters = {0};
	int			count;

	add_int8(&parameters, after, false);
	add_int4(&parameters, most, false);
	execute(&statement, &parameters);
	count = (int) SPI_processed;
	for (int i = 0; i < count; i++)
	{
		bool		is_null;

		runids[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
												1, &is_null));
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

void
clockwork_run_log_catch_up(const int64 *runids, int count)
{
	/* What is final in the history stays as it is. */
	static Statement statement = {
		"WITH taken AS"
		" (DELETE FROM cron.record_backlog WHERE runid OPERATOR(pg_catalog.=) ANY ($1) RETURNING *)"
		" INSERT INTO cron.job_run_details AS d (runid, " IDENTITY_COLUMNS ", " ENDING_COLUMNS ")"
		" SELECT runid, " IDENTITY_COLUMNS ", " ENDING_COLUMNS " FROM taken"
		" ON CONFLICT (runid) DO UPDATE SET " MERGED_ENDING
		" WHERE d.status OPERATOR(pg_catalog.=) ANY ('{queued,starting,running}'::pg_catalog.text[])"
		" RETURNING runid, status, " CHANNEL("d.jobid"),
		1, {INT8ARRAYOID}, NULL
	};
	Parameters	parameters = {0};

	add(&parameters, false, int8_array(runids, count));
	execute(&statement, &parameters);
	tell_each();
}

void
clockwork_run_log_problem(const RunIdentity *run, const RunEnding *ending)
{
	static Statement statement = {
		"INSERT INTO cron.job_run_details (" IDENTITY_COLUMNS ", " ENDING_COLUMNS ")"
		" SELECT " IDENTITY_VALUES ","
		" $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23"
		" WHERE NOT EXISTS (SELECT FROM"
		"  (SELECT d.return_message FROM cron.job_run_details d"
		"    WHERE d.jobid OPERATOR(pg_catalog.=) $1 AND d.due_time IS NULL"
		"    ORDER BY d.runid DESC LIMIT 1) AS newest"
		"  WHERE newest.return_message OPERATOR(pg_catalog.=) $12)"
		" RETURNING runid",
		23, {IDENTITY_TYPES, ENDING_TYPES}, NULL
	};
	Parameters	parameters = {0};

	add_identity(&parameters, run);
	add_ending(&parameters, ending);
	execute(&statement, &parameters);
	(void) tell(returned_runid(), ending);
}

TimestampTz
clockwork_run_log_newest_due_time(void)
{
	static Statement statement = {
		"SELECT pg_catalog.max(newest.due_time) FROM"
		" ((SELECT due_time FROM cron.job_run_details"
		"    WHERE trigger IS NULL OR trigger OPERATOR(pg_catalog.<>) 'catch_up'"
		"    ORDER BY runid DESC LIMIT 1000)"
		"  UNION ALL (SELECT due_time FROM cron.record_backlog"
		"    WHERE trigger IS NULL OR trigger OPERATOR(pg_catalog.<>) 'catch_up'"
		"    ORDER BY runid DESC LIMIT 1000)) AS newest",
		0, {0}, NULL
	};
	Parameters	parameters = {0};
	bool		is_null = true;
	Datum		value = (Datum) 0;

	execute(&statement, &parameters);
	if (SPI_processed > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	SPI_freetuptable(SPI_tuptable);
	return is_null ? 0 : DatumGetTimestampTz(value);
}

/* By the primary key, however long the history is. */
#define NEWEST_RECORDED(table) \
	"(SELECT jobid, due_time, attempt, requested_by FROM " table " ORDER BY runid DESC LIMIT $1)"

Recorded *
clockwork_run_log_newest_recorded(int most, int *count)
{
	static Statement statement = {
		"SELECT jobid, due_time FROM"
		" (" NEWEST_RECORDED("cron.job_run_details")
		"  UNION ALL " NEWEST_RECORDED("cron.record_backlog") ") AS newest"
		" WHERE jobid IS NOT NULL AND due_time IS NOT NULL"
		" AND attempt OPERATOR(pg_catalog.=) 1 AND requested_by IS NULL"
		" ORDER BY due_time",
		1, {INT4OID}, NULL
	};
	Parameters	parameters = {0};
	Recorded   *recorded;

	add_int4(&parameters, most, false);
	execute(&statement, &parameters);
	*count = (int) SPI_processed;
	recorded = SPI_palloc(sizeof(Recorded) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		is_null;

		recorded[i].jobid = DatumGetInt64(SPI_getbinval(row, desc, 1, &is_null));
		recorded[i].due_time = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &is_null));
	}
	SPI_freetuptable(SPI_tuptable);
	return recorded;
}

static Datum
final_statuses(bool only_succeeded)
{
	Datum		statuses[] = {
		CStringGetTextDatum("succeeded"), CStringGetTextDatum("failed"), CStringGetTextDatum("skipped")
	};

	return PointerGetDatum(construct_array(statuses, only_succeeded ? 1 : lengthof(statuses),
										   TEXTOID, -1, false, TYPALIGN_INT));
}

TimestampTz
clockwork_run_log_newest_final(int64 jobid, TimestampTz from, bool only_succeeded)
{
	static Statement statement = {
		"SELECT due_time FROM cron.job_run_details"
		" WHERE jobid OPERATOR(pg_catalog.=) $1 AND due_time OPERATOR(pg_catalog.>=) $2"
		" AND status OPERATOR(pg_catalog.=) ANY ($3) AND requested_by IS NULL"
		" ORDER BY due_time DESC LIMIT 1",
		3, {INT8OID, TIMESTAMPTZOID, TEXTARRAYOID}, NULL
	};
	Parameters	parameters = {0};
	bool		is_null = true;
	Datum		value = (Datum) 0;

	add_int8(&parameters, jobid, false);
	add(&parameters, false, TimestampTzGetDatum(from));
	add(&parameters, false, final_statuses(only_succeeded));
	execute(&statement, &parameters);
	if (SPI_processed > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	SPI_freetuptable(SPI_tuptable);
	return is_null ? 0 : DatumGetTimestampTz(value);
}

int
clockwork_run_log_trim(int64 jobid, TimestampTz from, TimestampTz to, bool only_succeeded, int most)
{
	static Statement statement = {
		"DELETE FROM cron.job_run_details WHERE runid OPERATOR(pg_catalog.=) ANY (ARRAY("
		" SELECT d.runid FROM cron.job_run_details d"
		" WHERE d.jobid OPERATOR(pg_catalog.=) $1"
		" AND d.due_time OPERATOR(pg_catalog.>=) $2 AND d.due_time OPERATOR(pg_catalog.<) $3"
		" AND d.status OPERATOR(pg_catalog.=) ANY ($4) AND d.requested_by IS NULL"
		" ORDER BY d.due_time LIMIT $5 FOR UPDATE SKIP LOCKED))",
		5, {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTARRAYOID, INT4OID}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, jobid, false);
	add(&parameters, false, TimestampTzGetDatum(from));
	add(&parameters, false, TimestampTzGetDatum(to));
	add(&parameters, false, final_statuses(only_succeeded));
	add_int4(&parameters, most, false);
	execute(&statement, &parameters);
	return (int) SPI_processed;
}

bool
clockwork_run_log_was_used(void)
{
	static Statement statement = {
		"SELECT FROM cron.runid_seq WHERE is_called", 0, {0}, NULL
	};
	Parameters	parameters = {0};
	bool		was_used;

	execute(&statement, &parameters);
	was_used = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return was_used;
}

int64
clockwork_run_log_newest_runid(void)
{
	static Statement statement = {
		"SELECT last_value AS runid FROM cron.runid_seq", 0, {0}, NULL
	};
	Parameters	parameters = {0};

	execute(&statement, &parameters);
	return returned_runid();
}

const char *
clockwork_run_log_trigger(const char *text)
{
	static const char *const words[] = {
		"schedule", "retry", "catch_up", "manual", "after", "launch", "enqueue"
	};

	for (int i = 0; text && i < lengthof(words); i++)
		if (strcmp(text, words[i]) == 0)
			return words[i];
	return words[0];
}

#define ONE_BY_ONE "one_by_one"
#define IN_PARALLEL "in_parallel"

const char *
clockwork_run_log_order(RunOrder order)
{
	switch (order)
	{
		case RUN_ALONE:
			return ONE_BY_ONE;
		case RUN_BESIDE_OTHERS:
			return IN_PARALLEL;
		case RUN_AS_JOB:
			break;
	}
	return NULL;
}

#define OPEN_RECORD_COLUMNS "runid, jobid, due_time, attempt, trigger," \
	" status OPERATOR(pg_catalog.=) 'starting', requested_by IS NOT NULL," \
	" COALESCE(reason OPERATOR(pg_catalog.=) 'waiting_for_parent', false)," \
	" CASE reason WHEN '" ONE_BY_ONE "' THEN 1 WHEN '" IN_PARALLEL "' THEN 2 ELSE 0 END"

/* The rows that a statement has given. */
static OpenRecord *
returned_records(int *count)
{
	OpenRecord *records;

	*count = (int) SPI_processed;
	records = SPI_palloc(sizeof(OpenRecord) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		is_null;
		Datum		trigger;

		records[i].runid = DatumGetInt64(SPI_getbinval(row, desc, 1, &is_null));
		records[i].jobid = DatumGetInt64(SPI_getbinval(row, desc, 2, &is_null));
		records[i].due_time = DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &is_null));
		records[i].attempt = DatumGetInt32(SPI_getbinval(row, desc, 4, &is_null));
		records[i].is_starting = DatumGetBool(SPI_getbinval(row, desc, 6, &is_null));
		records[i].asked = DatumGetBool(SPI_getbinval(row, desc, 7, &is_null));
		records[i].is_awaiting = DatumGetBool(SPI_getbinval(row, desc, 8, &is_null));
		records[i].order = (RunOrder) DatumGetInt32(SPI_getbinval(row, desc, 9, &is_null));
		trigger = SPI_getbinval(row, desc, 5, &is_null);
		records[i].trigger = clockwork_run_log_trigger(is_null ? NULL : TextDatumGetCString(trigger));
	}
	SPI_freetuptable(SPI_tuptable);
	return records;
}

OpenRecord *
clockwork_run_log_open_records(RunRange range, int *count)
{
	static Statement statement = {
		"SELECT " OPEN_RECORD_COLUMNS " FROM"
		" (SELECT runid, jobid, due_time, attempt, trigger, status, requested_by, reason FROM cron.job_run_details"
		"   WHERE " IN_RANGE("$1", "$2")
		"   AND runid OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT b.runid FROM cron.record_backlog b))"
		"  UNION ALL SELECT runid, jobid, due_time, attempt, trigger, status, requested_by, reason"
		"   FROM cron.record_backlog WHERE " IN_RANGE("$1", "$2") ") AS r"
		" WHERE status OPERATOR(pg_catalog.=) ANY ('{queued,starting}'::pg_catalog.text[])"
		" AND jobid IS NOT NULL AND due_time IS NOT NULL AND attempt IS NOT NULL"
		" ORDER BY due_time, runid",
		2, {INT8OID, INT8OID}, NULL
	};
	Parameters	parameters = {0};

	add_int8(&parameters, range.after, false);
	add_int8(&parameters, range.up_to, false);
	execute(&statement, &parameters);
	return returned_records(count);
}

int64
clockwork_run_log_find_nth_newest(int n)
{
	static Statement statement = {
		"SELECT runid FROM cron.job_run_details ORDER BY runid DESC OFFSET $1 LIMIT 1",
		1, {INT4OID}, NULL
	};
	Parameters	parameters = {0};

	add_int4(&parameters, n, false);
	execute(&statement, &parameters);
	return returned_runid();
}

RunRange
clockwork_run_log_look_back(int64 up_to, int most, bool *has_open)
{
	static Statement statement = {
		"SELECT pg_catalog.min(runid), pg_catalog.bool_or(" IS_OPEN ") OR EXISTS"
		" (SELECT FROM cron.record_backlog WHERE runid OPERATOR(pg_catalog.<=) $1) FROM"
		" (SELECT runid, status FROM cron.job_run_details WHERE runid OPERATOR(pg_catalog.<=) $1"
		"   ORDER BY runid DESC LIMIT $2) AS r",
		2, {INT8OID, INT4OID}, NULL
	};
	Parameters	parameters = {0};
	RunRange	range = {.after = 0, .up_to = up_to};
	bool		is_null;
	Datum		value;

	add_int8(&parameters, up_to, false);
	add_int4(&parameters, most, false);
	execute(&statement, &parameters);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	if (!is_null)
		range.after = DatumGetInt64(value) - 1;
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &is_null);
	*has_open = !is_null && DatumGetBool(value);
	SPI_freetuptable(SPI_tuptable);
	return range;
}

bool
clockwork_run_log_is_final(const char *status)
{
	return status && (strcmp(status, "succeeded") == 0 || strcmp(status, "failed") == 0 ||
					  strcmp(status, "skipped") == 0);
}

bool
clockwork_run_log_look(int64 runid, RunLook *look)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(runid)};
	bool		found;
	bool		is_null;
	Datum		jobid;
	Datum		owner;
	Datum		writer;

	memset(look, 0, sizeof(*look));
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT COALESCE(b.jobid, d.jobid), COALESCE(d.owner, b.owner),"
							  " COALESCE(b.status, d.status), COALESCE(d.trigger, b.trigger),"
							  " d.label, d.requested_by, d.xmin FROM"
							  " (SELECT *, xmin FROM cron.job_run_details"
							  "   WHERE runid OPERATOR(pg_catalog.=) $1) AS d"
							  " FULL JOIN (SELECT * FROM cron.record_backlog"
							  "   WHERE runid OPERATOR(pg_catalog.=) $1) AS b"
							  " ON d.runid OPERATOR(pg_catalog.=) b.runid",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read cron.job_run_details");
	PopActiveSnapshot();
	found = SPI_processed > 0;
	if (found)
	{
		jobid = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
		look->jobid = is_null ? 0 : DatumGetInt64(jobid);
		owner = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &is_null);
		look->owner = is_null ? InvalidOid : DatumGetObjectId(owner);
		look->status = copy_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
		look->trigger = copy_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4);
		look->label = copy_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5);
		look->requested_by = copy_column(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6);
		writer = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 7, &is_null);
		look->is_ours = !is_null && TransactionIdIsCurrentTransactionId(DatumGetTransactionId(writer));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

void
clockwork_run_log_cancel(int64 runid, const char *by)
{
	RunEnding	ending;

	memset(&ending, 0, sizeof(ending));
	ending.status = "failed";
	ending.reason = "canceled";
	ending.elevel = ERROR;
	ending.sqlerrcode = ERRCODE_QUERY_CANCELED;
	ending.message = "job canceled";
	ending.detail = psprintf("Canceled by role \"%s\" before it began.", by);
	ending.end_time = GetCurrentTimestamp();
	clockwork_run_log_finish(runid, &ending);
}

#define REQUEST(condition) "SELECT " OPEN_RECORD_COLUMNS " FROM cron.job_run_details WHERE " condition \
	" AND status OPERATOR(pg_catalog.=) 'queued' AND requested_by IS NOT NULL" \
	" AND jobid IS NOT NULL AND due_time IS NOT NULL AND attempt IS NOT NULL" \
	" AND runid OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT b.runid FROM cron.record_backlog b))"

OpenRecord *
clockwork_run_log_requests(const int64 *runids, int nrunids, int64 from, int *count)
{
	/* Each branch goes by the primary key. */
	static Statement statement = {
		REQUEST("runid OPERATOR(pg_catalog.=) ANY ($1)")
		" UNION " REQUEST("runid OPERATOR(pg_catalog.>=) $2")
		" ORDER BY due_time, runid",
		2, {INT8ARRAYOID, INT8OID}, NULL
	};
	Parameters	parameters = {0};

	add(&parameters, false, int8_array(runids, nrunids));
	add_int8(&parameters, from == 0 ? PG_INT64_MAX : from, false);
	execute(&statement, &parameters);
	return returned_records(count);
}

void
clockwork_run_log_visit_begun(RunRange range, BegunVisitor visit, void *arg)
{
	/* Triggers on the table may have kept a run from noting a doubt. */
	static Statement statement = {
		"SELECT runid, command FROM cron.job_run_details"
		" WHERE status OPERATOR(pg_catalog.=) ANY ('{starting,running}'::pg_catalog.text[])"
		" AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text"
		" AND due_time IS NOT NULL AND attempt IS NOT NULL AND effects IS NULL"
		" AND " IN_RANGE("$1", "$2")
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_class"
		"  WHERE oid OPERATOR(pg_catalog.=) 'cron.job_run_details'::pg_catalog.regclass"
		"  AND (relhastriggers OR relhasrules))",
		2, {INT8OID, INT8OID}, NULL
	};
	Parameters	parameters = {0};
	SPITupleTable *table;
	uint64		count;

	add_int8(&parameters, range.after, false);
	add_int8(&parameters, range.up_to, false);
	execute(&statement, &parameters);
	table = SPI_tuptable;
	count = SPI_processed;
	for (uint64 i = 0; i < count; i++)
	{
		bool		is_null;
		Datum		command = SPI_getbinval(table->vals[i], table->tupdesc, 2, &is_null);

		if (!is_null)
			visit(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &is_null)),
				  TextDatumGetCString(command), arg);
	}
	SPI_freetuptable(table);
}

/*
 * A record's beginning is in the WAL before any effect of its run.  So where a
 * standby took over, a run that is recorded as waiting has left nothing.
 */
#define WAITED "status OPERATOR(pg_catalog.=) 'queued'"
#define FROM_AN_OLDER_TIMELINE "timeline OPERATOR(pg_catalog.<) $4"
#define FAILOVER_DETAIL \
	" CASE WHEN " WAITED \
	" THEN pg_catalog.format('The run waited on timeline %s and had not begun where timeline %s branched off.'," \
	"  timeline, $4)" \
	" ELSE pg_catalog.format('The run began on timeline %s, and its end is not known on timeline %s." \
	" What it committed is here if it was replicated before timeline %s branched off.', timeline, $4, $4)" \
	" END"

#define IS_HARMLESS "runid OPERATOR(pg_catalog.=) ANY ($2)"

#define CLOSE_ORPHANS(table) \
	"UPDATE " table " SET" \
	" status = CASE WHEN " WAITED " THEN 'skipped' ELSE 'failed' END," \
	" reason = CASE WHEN " FROM_AN_OLDER_TIMELINE " THEN 'failover' ELSE 'server_restart' END," \
	" return_message = CASE WHEN " FROM_AN_OLDER_TIMELINE \
	"  THEN pg_catalog.concat('server promoted\nDETAIL: '," FAILOVER_DETAIL ")" \
	"  WHEN " WAITED " THEN 'server restarted'" \
	"  WHEN " IS_HARMLESS " THEN 'server restarted: the run was interrupted, nothing of it was committed'" \
	"  ELSE 'server restarted: the run was interrupted, part or all of it may have been committed' END," \
	" effects = CASE WHEN " WAITED " THEN NULL WHEN " IS_HARMLESS " THEN 'none' ELSE 'unknown' END," \
	" detail = CASE WHEN " FROM_AN_OLDER_TIMELINE " THEN" FAILOVER_DETAIL " END," \
	" end_time = pg_catalog.clock_timestamp()" \
	" WHERE " IS_OPEN \
	" AND runid OPERATOR(pg_catalog.<>) ALL ($1) AND " IN_RANGE("$6", "$3") \
	" AND (requested_by IS NULL OR runid OPERATOR(pg_catalog.<=) $5" \
	"      OR status OPERATOR(pg_catalog.<>) 'queued')"

static char *
keep_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		is_null;
	Datum		value = SPI_getbinval(row, desc, column, &is_null);
	char	   *shown;
	char	   *kept;

	if (is_null)
		return NULL;
	shown = TextDatumGetCString(value);
	kept = SPI_palloc(strlen(shown) + 1);
	strcpy(kept, shown);
	return kept;
}

PastRun *
clockwork_run_log_past(int64 jobid, TimestampTz since, int most, int *count)
{
	static Statement statement = {
		"SELECT due_time, attempt, trigger, status OPERATOR(pg_catalog.=) 'succeeded', reason, sqlstate,"
		" COALESCE(end_time, due_time)"
		" FROM cron.job_run_details"
		" WHERE jobid OPERATOR(pg_catalog.=) $1 AND due_time OPERATOR(pg_catalog.>) $2"
		" AND attempt IS NOT NULL"
		" AND status OPERATOR(pg_catalog.=) ANY ('{succeeded,failed}'::pg_catalog.text[])"
		" ORDER BY jobid DESC, due_time DESC, attempt DESC LIMIT $3",
		3, {INT8OID, TIMESTAMPTZOID, INT4OID}, NULL
	};
	Parameters	parameters = {0};
	PastRun    *past;

	add_int8(&parameters, jobid, false);
	add(&parameters, false, TimestampTzGetDatum(since));
	add_int4(&parameters, most, false);
	execute(&statement, &parameters);
	*count = (int) SPI_processed;
	past = SPI_palloc(sizeof(PastRun) * Max(*count, 1));
	for (int i = 0; i < *count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		is_null;
		Datum		trigger = SPI_getbinval(row, desc, 3, &is_null);

		past[i].trigger = clockwork_run_log_trigger(is_null ? NULL : TextDatumGetCString(trigger));
		past[i].due_time = DatumGetTimestampTz(SPI_getbinval(row, desc, 1, &is_null));
		past[i].attempt = DatumGetInt32(SPI_getbinval(row, desc, 2, &is_null));
		past[i].succeeded = DatumGetBool(SPI_getbinval(row, desc, 4, &is_null));
		past[i].reason = keep_column(row, desc, 5);
		past[i].sqlstate = keep_column(row, desc, 6);
		past[i].end_time = DatumGetTimestampTz(SPI_getbinval(row, desc, 7, &is_null));
	}
	SPI_freetuptable(SPI_tuptable);
	return past;
}

#define WITHDRAW(table) "DELETE FROM " table WHERE_OPEN

void
clockwork_run_log_withdraw(int64 runid)
{
	static Statement in_history = {WITHDRAW("cron.job_run_details"), 1, {INT8OID}, NULL};
	static Statement in_backlog = {WITHDRAW("cron.record_backlog"), 1, {INT8OID}, NULL};
	Parameters	parameters = {0};

	add_int8(&parameters, runid, false);
	execute(&in_history, &parameters);
	if (SPI_processed == 0)
		execute(&in_backlog, &parameters);
}

uint64
clockwork_run_log_close_orphans(const int64 *live, int count, RunRange range, int64 asked,
								const int64 *harmless, int nharmless)
{
	static Statement in_history = {
		CLOSE_ORPHANS("cron.job_run_details")
		" AND runid OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT b.runid FROM cron.record_backlog b))"
		" RETURNING runid, status, " CHANNEL("job_run_details.jobid"),
		6, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT4OID, INT8OID, INT8OID}, NULL
	};
	static Statement in_backlog = {
		CLOSE_ORPHANS("cron.record_backlog"),
		6, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT4OID, INT8OID, INT8OID}, NULL
	};
	Parameters	parameters = {0};
	uint64		closed;

	add(&parameters, false, int8_array(live, count));
	add(&parameters, false, int8_array(harmless, nharmless));
	add_int8(&parameters, range.up_to, false);
	add_int4(&parameters, current_timeline(), false);
	add_int8(&parameters, asked, false);
	add_int8(&parameters, range.after, false);
	execute(&in_history, &parameters);
	closed = SPI_processed;
	tell_each();
	execute(&in_backlog, &parameters);
	return closed + SPI_processed;
}

/* Keep ASCII, replace every other byte. */
static char *
ascii_only(const char *text)
{
	char	   *copy = pstrdup(text);

	for (char *c = copy; *c; c++)
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	return copy;
}

char *
clockwork_run_log_convert(const char *text, int encoding)
{
	int			server_encoding = GetDatabaseEncoding();
	int			length;
	Oid			converter;
	int			space;
	char	   *result;

	if (text == NULL)
		return NULL;
	length = (int) strlen(text);
	if (encoding == server_encoding || server_encoding == PG_SQL_ASCII ||
		encoding == PG_SQL_ASCII)
		return pg_verify_mbstr(server_encoding, text, length, true) ?
			pstrdup(text) : ascii_only(text);

	converter = FindDefaultConversionProc(encoding, server_encoding);
	if (!OidIsValid(converter) || length > MaxAllocSize / MAX_CONVERSION_GROWTH - 1)
		return ascii_only(text);
	space = length * MAX_CONVERSION_GROWTH + 1;
	result = palloc(space);
	if (pg_do_encoding_conversion_buf(converter, encoding, server_encoding,
									  (unsigned char *) unconstify(char *, text), length,
									  (unsigned char *) result, space, true) < length)
	{
		pfree(result);
		return ascii_only(text);
	}
	return result;
}
