/*
 * Moving records from the backlog to the history.
 *
 * The backlog has what cron.job_run_details would not take when it came: the
 * table was locked, or somebody's trigger, index or constraint refused it.
 */
#include "postgres.h"

#include "compat.h"
#include "backlog.h"
#include "extension.h"
#include "run_list.h"
#include "session.h"

/* So many records move in one pass. */
#define CATCH_UP_PER_PASS 200

/* After records were refused, the next look is RETRY_MS away for each ten of
 * them, so that trying costs little however many they are; but not further
 * than this. */
#define REFUSED_MS_MAX 30000

static int64 looked_at = 0;		/* runids up to here have been looked at */
static int	refused = 0;		/* so many since the first of them */
static int64 catch_up_at = 0;	/* monotonic; not before that */

/* Enter a transaction and a section of the extension; false if it is not there. */
static bool
enter_history(ExtensionSection *section)
{
	ExtensionObjects objects;

	clockwork_session_begin();
	if (clockwork_extension_find(&objects) && objects.job == launcher.job_table)
	{
		clockwork_extension_enter(section, objects.owner);
		return true;
	}
	clockwork_session_commit();
	return false;
}

static void
leave_history(ExtensionSection *section)
{
	clockwork_extension_leave(section);
	clockwork_session_commit();
}

/* Move these to the history.  Returns 0, or why it does not take them. */
static int
move_from_backlog(const int64 *runids, int count)
{
	volatile int sqlerrcode = 0;

	PG_TRY();
	{
		ExtensionSection section;

		if (enter_history(&section))
		{
			clockwork_run_log_catch_up(runids, count);
			leave_history(&section);
		}
	}
	PG_CATCH();
	{
		sqlerrcode = clockwork_session_recover(launcher.pass_context, true);
	}
	PG_END_TRY();
	return sqlerrcode;
}

/*
 * One that is refused again and again stays where it is, for all to see, and
 * holds up nobody.
 */
static void
move_each_from_backlog(const int64 *runids, int count)
{
	for (int i = 0; i < count; i++)
	{
		int			sqlerrcode = move_from_backlog(&runids[i], 1);

		if (sqlerrcode != 0)
			refused++;
		if (sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			return;				/* the next one would wait as well */
	}
}

void
clockwork_backlog_catch_up(void)
{
	int64		runids[CATCH_UP_PER_PASS];
	ExtensionSection section;
	int			count = 0;
	int			sqlerrcode;

	if (!launcher.has_backlog || !clockwork_run_is_time(Max(catch_up_at, launcher.history_locked_until)))
		return;
	catch_up_at = launcher.now.monotonic + RETRY_MS * 1000L;
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT_SHORT);
	if (enter_history(&section))
	{
		count = clockwork_run_log_backlog(looked_at, runids, CATCH_UP_PER_PASS);
		leave_history(&section);
	}
	sqlerrcode = count == 0 ? 0 : move_from_backlog(runids, count);
	if (sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		refused++;
	else if (sqlerrcode != 0)
		move_each_from_backlog(runids, count);
	clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT);

	if (count == CATCH_UP_PER_PASS && sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
	{
		looked_at = runids[count - 1];
		catch_up_at = launcher.now.monotonic;	/* go on in the next pass */
	}
	else
	{
		launcher.has_backlog = refused > 0;
		catch_up_at = launcher.now.monotonic +
			Min((int64) RETRY_MS * (1 + refused / 10), REFUSED_MS_MAX) * 1000;
		refused = 0;
		looked_at = 0;
	}
	if (launcher.has_backlog)
		(void) clockwork_run_is_time(Max(catch_up_at, launcher.now.monotonic + 1));
}
