/*
 * The configuration parameters that a job sets for its runs.
 *
 * What may be set, and to what, is the server's own answer: it is asked once
 * when the job is scheduled, and again in the session of each run, since
 * rights and parameters come and go.
 */
#include "postgres.h"

#include "compat.h"
#include "run_settings.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

typedef void (*SettingVisitor) (const char *name, const char *value);

static char *
value_text(const char *name, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "on" : "off");
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the value of parameter \"%s\" must be a string, a number, true or false", name)));
	}
	return NULL;				/* not reached */
}

static void
add_context(void *arg)
{
	errcontext("option \"settings\" of the job, parameter \"%s\"", (const char *) arg);
}

static void
visit_settings(const char *settings, SettingVisitor visit)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(settings)));
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	value;
	ErrorContextCallback context;

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must be an object", "settings")));
	context.callback = add_context;
	context.arg = NULL;
	context.previous = error_context_stack;
	iterator = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			context.arg = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			error_context_stack = &context;
			visit(context.arg, value_text(context.arg, &value));
			error_context_stack = context.previous;
		}
	}
}

static GucContext
context_of_user(void)
{
	return superuser() ? PGC_SUSET : PGC_USERSET;
}

static void
check_setting(const char *name, const char *value)
{
	/* These belong to a transaction, and a run has not begun one. */
	if (pg_strcasecmp(name, "transaction_isolation") == 0 ||
		pg_strcasecmp(name, "transaction_read_only") == 0 ||
		pg_strcasecmp(name, "transaction_deferrable") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM),
				 errmsg("parameter \"%s\" cannot be set for a job", name),
				 errhint("Use \"default_%s\".", name)));
	(void) set_config_option(name, value, context_of_user(), PGC_S_TEST,
							 GUC_ACTION_SET, false, ERROR, false);
}

void
clockwork_run_settings_check(const char *settings, const char *username)
{
	Oid			user;
	int			security;

	/* An error leaves this to the abort of the (sub)transaction. */
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(get_role_oid(username, false),
						   security | SECURITY_LOCAL_USERID_CHANGE);
	visit_settings(settings, check_setting);
	SetUserIdAndSecContext(user, security);
}

static void
apply_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, context_of_user(), PGC_S_CLIENT,
							 GUC_ACTION_SET, true, ERROR, false);
}

void
clockwork_run_settings_apply(const char *settings)
{
	visit_settings(settings, apply_setting);
}
