/*
 * The options of a job: one table says all there is to know of each key.
 *
 * The same vocabulary serves cron.schedule, cron.alter_job and the columns of
 * cron.job.  A key that is not in the table, or a value of the wrong type, is
 * refused with what would be right.
 */
#include "postgres.h"

#include <limits.h>

#include "compat.h"
#include "job_options.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_BOOLEAN,
	OPTION_INTEGER,
	OPTION_INTERVAL,
	OPTION_TIME,
	OPTION_TEXT_LIST,
	OPTION_OBJECT
} OptionType;

typedef struct Option
{
	const char *key;
	const char *column;
	OptionType	type;
	const char *fallback;		/* the default; NULL: none */
	bool		may_reset;		/* may be null */
	bool		is_argument;	/* cron.schedule takes it as an argument */
	int			least;			/* of integers */
	int			most;
	const char *words;			/* of texts: what is allowed, '|' around each */
} Option;

static const Option options_known[] = {
	{"name", "jobname", OPTION_TEXT, NULL, true, true, 0, 0, NULL},
	{"schedule", "schedule", OPTION_TEXT, NULL, false, true, 0, 0, NULL},
	{"command", "command", OPTION_TEXT, NULL, false, true, 0, 0, NULL},
	{"database", "database", OPTION_TEXT, NULL, false, false, 0, 0, NULL},
	{"username", "username", OPTION_TEXT, NULL, false, false, 0, 0, NULL},
	{"active", "active", OPTION_BOOLEAN, "true", true, false, 0, 0, NULL},
	{"timezone", "timezone", OPTION_TEXT, NULL, true, false, 0, 0, NULL},
	{"on_overlap", "on_overlap", OPTION_TEXT, "queue", true, false, 0, 0,
	"|queue|skip|replace|parallel|"},
	{"max_parallel", "max_parallel", OPTION_INTEGER, NULL, true, false, 1, INT_MAX, NULL},
	{"on_missed", "on_missed", OPTION_TEXT, "skip", true, false, 0, 0,
	"|skip|run_once|run_all|"},
	{"start_deadline", "start_deadline", OPTION_INTERVAL, NULL, true, false, 0, 0, NULL},
	{"timeout", "timeout", OPTION_INTERVAL, NULL, true, false, 0, 0, NULL},
	{"max_attempts", "max_attempts", OPTION_INTEGER, "1", true, false, 1, 1000, NULL},
	{"retry_delay", "retry_delay", OPTION_INTERVAL, "1 minute", true, false, 0, 0, NULL},
	{"retry_on", "retry_on", OPTION_TEXT_LIST, NULL, true, false, 0, 0, NULL},
	{"jitter", "jitter", OPTION_INTERVAL, "0", true, false, 0, 0, NULL},
	{"priority", "priority", OPTION_INTEGER, "0", true, false, -1000, 1000, NULL},
	{"starts_at", "starts_at", OPTION_TIME, NULL, true, false, 0, 0, NULL},
	{"ends_at", "ends_at", OPTION_TIME, NULL, true, false, 0, 0, NULL},
	{"pause_after", "pause_after", OPTION_INTEGER, NULL, true, false, 1, 1000, NULL},
	{"settings", "settings", OPTION_OBJECT, NULL, true, false, 0, 0, NULL},
	{"fresh_session", "fresh_session", OPTION_BOOLEAN, "false", true, false, 0, 0, NULL},
	{"history", "history", OPTION_TEXT, "all", true, false, 0, 0,
	"|all|failures|none|"},
	{"notify", "notify", OPTION_TEXT, NULL, true, false, 0, 0, NULL},
	{"managed_by", "managed_by", OPTION_TEXT, NULL, true, false, 0, 0, NULL},
};

static const char *
column_type(OptionType type)
{
	switch (type)
	{
		case OPTION_BOOLEAN:
			return "pg_catalog.bool";
		case OPTION_INTEGER:
			return "pg_catalog.int4";
		case OPTION_INTERVAL:
			return "pg_catalog.interval";
		case OPTION_TIME:
			return "pg_catalog.timestamptz";
		case OPTION_TEXT_LIST:
			return "pg_catalog.text[]";
		case OPTION_OBJECT:
			return "pg_catalog.jsonb";
		case OPTION_TEXT:
			break;
	}
	return "pg_catalog.text";
}

static const char *
describe_type(OptionType type)
{
	switch (type)
	{
		case OPTION_TEXT:
			return "a string";
		case OPTION_BOOLEAN:
			return "true or false";
		case OPTION_INTEGER:
			return "a whole number";
		case OPTION_INTERVAL:
			return "a string with an interval, such as \"30 seconds\"";
		case OPTION_TIME:
			return "a string with a time stamp, such as \"2030-01-31 12:00+00\"";
		case OPTION_TEXT_LIST:
			return "an array of strings";
		case OPTION_OBJECT:
			return "an object";
	}
	return "";
}

static const char *
list_keys(bool scheduling)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < lengthof(options_known); i++)
		if (!scheduling || !options_known[i].is_argument)
			appendStringInfo(&list, "%s%s", list.len ? ", " : "", options_known[i].key);
	return list.data;
}

static const Option *
find_option(const char *key, bool scheduling)
{
	for (int i = 0; i < lengthof(options_known); i++)
	{
		const Option *option = &options_known[i];

		if (strcmp(option->key, key) != 0)
			continue;
		if (scheduling && option->is_argument)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" cannot be given here", key),
					 errdetail("cron.schedule takes it as an argument of its own."),
					 errhint("Use cron.alter_job to change it.")));
		return option;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\"", key),
			 errhint("Options are: %s.", list_keys(scheduling))));
	return NULL;				/* not reached */
}

static void
refuse_type(const Option *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" must be %s", option->key, describe_type(option->type))));
}

/* A JSON array of strings as the text of a text[]. */
static char *
text_list(const Option *option, JsonbContainer *array)
{
	JsonbIterator *iterator = JsonbIteratorInit(array);
	JsonbIteratorToken token;
	JsonbValue	element;
	ArrayBuildState *texts = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	Datum		list;

	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvString)
			refuse_type(option);
		texts = accumArrayResult(texts,
								 PointerGetDatum(cstring_to_text_with_len(element.val.string.val,
																		  element.val.string.len)),
								 false, TEXTOID, CurrentMemoryContext);
	}
	list = makeArrayResult(texts, CurrentMemoryContext);
	return OidOutputFunctionCall(F_ARRAY_OUT, list);
}

/* A JSON value as the text that the column's type reads. */
static char *
value_text(const Option *option, JsonbValue *value)
{
	switch (option->type)
	{
		case OPTION_TEXT:
		case OPTION_INTERVAL:
		case OPTION_TIME:
			if (value->type != jbvString)
				refuse_type(option);
			return pnstrdup(value->val.string.val, value->val.string.len);

		case OPTION_BOOLEAN:
			if (value->type != jbvBool)
				refuse_type(option);
			return pstrdup(value->val.boolean ? "true" : "false");

		case OPTION_INTEGER:
			{
				int64		number;
				Datum		whole;
				char	   *text;

				if (value->type != jbvNumeric)
					refuse_type(option);

				/* JSON does not tell 7 from 7.0. */
				whole = DirectFunctionCall2(numeric_trunc, NumericGetDatum(value->val.numeric),
											Int32GetDatum(0));
				if (!DatumGetBool(DirectFunctionCall2(numeric_eq, whole,
													  NumericGetDatum(value->val.numeric))))
					refuse_type(option);
				text = DatumGetCString(DirectFunctionCall1(numeric_out, whole));
				number = strlen(text) > 11 ? PG_INT64_MAX : strtoll(text, NULL, 10);
				if (number < option->least || number > option->most)
					ereport(ERROR,
							(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							 errmsg("option \"%s\" is out of range", option->key),
							 errdetail("%s is outside the range %d to %d.",
									   text, option->least, option->most)));
				return text;
			}

		case OPTION_TEXT_LIST:
			if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
				refuse_type(option);
			return text_list(option, value->val.binary.data);

		case OPTION_OBJECT:
			if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
				refuse_type(option);
			break;
	}
	return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
}

static void
check_word(const Option *option, const char *text)
{
	char	   *quoted;

	if (option->words == NULL)
		return;
	quoted = psprintf("|%s|", text);
	if (strchr(text, '|') == NULL && strstr(option->words, quoted) != NULL)
		return;
	{
		StringInfoData list;
		const char *word = option->words + 1;

		initStringInfo(&list);
		while (*word)
		{
			int			length = (int) strcspn(word, "|");

			appendStringInfo(&list, "%s\"%.*s\"", list.len ? ", " : "", length, word);
			word += length + 1;
		}
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized value \"%s\" for option \"%s\"", text, option->key),
				 errhint("Use one of %s.", list.data)));
	}
}

static Datum
read_interval(const char *text)
{
	return DirectFunctionCall3(interval_in, CStringGetDatum(text),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static void
check_interval(const Option *option, const char *text)
{
	Datum		zero = read_interval("0");

	if (option->type != OPTION_INTERVAL)
		return;
	if (DatumGetBool(DirectFunctionCall2(interval_lt, read_interval(text), zero)) ||
		(option->fallback == NULL &&
		 DatumGetBool(DirectFunctionCall2(interval_eq, read_interval(text), zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" is out of range", option->key),
				 errdetail("\"%s\" is not %s.", text,
						   option->fallback ? "zero or more" : "more than zero")));
}

static void
check_time(const Option *option, const char *text)
{
	if (option->type == OPTION_TIME)
		(void) DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* A name that NOTIFY and LISTEN take. */
static void
check_channel(const Option *option, const char *text)
{
	if (strcmp(option->key, "notify") != 0 || (text[0] && strlen(text) < NAMEDATALEN))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" is out of range", option->key),
			 errdetail("The name of a channel has 1 to %d bytes; this has %zu.",
					   NAMEDATALEN - 1, strlen(text))));
}

static void
add_option(JobChange *change, const Option *option, JsonbValue *value)
{
	char	   *text;

	if (value->type == jbvNull)
	{
		if (!option->may_reset)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("option \"%s\" can not be null", option->key)));
		job_change_set(change, option->column, column_type(option->type), NULL);
		change->columns[change->count - 1].reset = true;
		return;
	}
	text = value_text(option, value);
	check_word(option, text);
	check_interval(option, text);
	check_time(option, text);
	check_channel(option, text);
	job_change_set(change, option->column, column_type(option->type), text);
}

void
clockwork_job_options_read(Jsonb *options, bool scheduling, JobChange *change)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	const Option *option = NULL;

	StaticAssertStmt(lengthof(options_known) <= JOB_CHANGE_MAX, "a change holds all options");

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object"),
				 errhint("Options are: %s.", list_keys(scheduling))));

	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			option = find_option(pnstrdup(value.val.string.val, value.val.string.len),
								 scheduling);
		else if (token == WJB_VALUE)
			add_option(change, option, &value);
	}
}
