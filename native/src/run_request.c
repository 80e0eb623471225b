/*
 * The way a session's wish reaches the launcher, and the answer comes back.
 *
 * All of it is on the board in shared memory, under the panel's lock, which is
 * held for a copy.  What the board loses in a crash is not missed: requests
 * are records, a cancelled run is gone with the server, and those who waited
 * are gone too.  A session that dies while it waits leaves nothing behind: a
 * ticket needs no owner.
 */
#include "postgres.h"

#include "compat.h"
#include "clock.h"
#include "run_request.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"

/* So long a session waits for the launcher's answer. */
#define ANSWER_USEC (10 * INT64CONST(1000000))

/* What the current transaction asks for. */
static int64 requested[CLOCKWORK_MAX_REQUESTS];
static int	nrequested = 0;
static int64 requested_from = 0;	/* too many: all from this runid on */
static bool pause_changed = false;
static bool is_holding = false;

/* In the launcher: those who wait are woken once, after the pass. */
static bool has_news = false;
static bool is_held_pass = false;

static RequestBoard *
board(void)
{
	return &clockwork_shmem_panel()->board;
}

static void
lock_board(LWLockMode mode)
{
	LWLockAcquire(clockwork_shmem_panel()->lock, mode);
}

static void
unlock_board(void)
{
	LWLockRelease(clockwork_shmem_panel()->lock);
}

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = clockwork_wait_event_new("PgClockworkRun");
	return event;
}

/* The earlier of two runids of which 0 is none. */
static int64
earlier(int64 a, int64 b)
{
	if (a == 0 || b == 0)
		return Max(a, b);
	return Min(a, b);
}

/* ---- in a session ---- */

static void
hand_over(void)
{
	RequestBoard *to = board();

	lock_board(LW_EXCLUSIVE);
	if (to->nrequests + nrequested > CLOCKWORK_MAX_REQUESTS)
	{
		/* Too many to be told apart. */
		for (int i = 0; i < nrequested; i++)
			to->requests_from = earlier(to->requests_from, requested[i]);
		for (int i = 0; i < to->nrequests; i++)
			to->requests_from = earlier(to->requests_from, to->requests[i]);
		to->nrequests = 0;
	}
	else
	{
		memcpy(&to->requests[to->nrequests], requested, nrequested * sizeof(int64));
		to->nrequests += nrequested;
	}
	to->requests_from = earlier(to->requests_from, requested_from);
	if (pause_changed)
		to->pause_changed = true;
	if (is_holding)
		to->holds--;
	unlock_board();
	clockwork_shmem_wake_launcher();
}

static void
forget(void)
{
	nrequested = 0;
	requested_from = 0;
	pause_changed = false;
	is_holding = false;
}

static bool
is_empty(void)
{
	return nrequested == 0 && requested_from == 0 && !pause_changed && !is_holding;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (is_empty())
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			hand_over();
			forget();
			break;
		case XACT_EVENT_ABORT:
			nrequested = 0;
			requested_from = 0;
			pause_changed = false;
			if (is_holding)
				hand_over();
			forget();
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has asked for runs, or paused or resumed all jobs")));
			break;
		default:
			break;
	}
}

static void
watch_transaction(void)
{
	static bool is_registered = false;

	if (!is_registered)
		RegisterXactCallback(at_transaction_event, NULL);
	is_registered = true;
}

int64
clockwork_run_request_first(Oid job_table)
{
	int64		first;

	lock_board(LW_SHARED);
	first = board()->first_table == job_table ? board()->first_request : 0;
	unlock_board();
	return first;
}

/*
 * Numbers only grow, over crashes too.  So whatever was drawn before the first
 * request of this server's life divides the records left over from before it
 * from those that are asked for in it.
 */
void
clockwork_run_request_prepare(Oid job_table, int64 (*draw) (void))
{
	int64		drawn;

	watch_transaction();
	if (clockwork_run_request_first(job_table) != 0)
		return;
	drawn = draw();
	lock_board(LW_EXCLUSIVE);
	if (board()->first_table != job_table)
	{
		board()->first_table = job_table;
		board()->first_request = drawn;
	}
	unlock_board();
}

void
clockwork_run_request_note(int64 runid)
{
	if (nrequested < CLOCKWORK_MAX_REQUESTS)
		requested[nrequested++] = runid;
	else
		requested_from = earlier(requested_from, runid);
}

void
clockwork_run_request_note_pause(void)
{
	watch_transaction();
	pause_changed = true;
}

void
clockwork_run_request_hold(void)
{
	watch_transaction();
	if (is_holding)
		return;
	lock_board(LW_EXCLUSIVE);
	board()->holds++;
	unlock_board();
	is_holding = true;
	clockwork_shmem_wake_launcher();
}

uint64
clockwork_run_request_passes(void)
{
	uint64		passes;

	lock_board(LW_SHARED);
	passes = board()->passes;
	unlock_board();
	return passes;
}

/* Milliseconds until a monotonic time, rounded up. */
static long
ms_until(int64 at)
{
	int64		left = at - clockwork_clock_read().monotonic;

	return left <= 0 ? 0 : (long) ((left + 999) / 1000);
}

/* False if there is no room. */
static bool
post_cancel(int64 runid, const char *by, int64 grace, uint64 *ticket)
{
	RequestBoard *to = board();
	bool		has_room;

	lock_board(LW_EXCLUSIVE);
	has_room = to->posted - to->answered < CLOCKWORK_MAX_CANCELS;
	if (has_room)
	{
		CancelRequest *request = &to->cancels[to->posted % CLOCKWORK_MAX_CANCELS];

		*ticket = to->posted++;
		request->ticket = *ticket;
		request->runid = runid;
		strlcpy(NameStr(request->by), by, NAMEDATALEN);
		request->grace = grace;
		request->answer = CANCEL_UNANSWERED;
	}
	unlock_board();
	return has_room;
}

static CancelAnswer
read_answer(uint64 ticket)
{
	CancelAnswer answer = CANCEL_UNANSWERED;

	lock_board(LW_SHARED);
	if (board()->answered > ticket)
	{
		CancelRequest *request = &board()->cancels[ticket % CLOCKWORK_MAX_CANCELS];

		/* Its place may have been taken by a later one. */
		answer = request->ticket == ticket ? request->answer : CANCEL_DONE;
	}
	unlock_board();
	return answer;
}

CancelAnswer
clockwork_run_request_cancel(int64 runid, const char *by, int64 grace)
{
	ConditionVariable *given = &board()->answer_given;
	int64		until = clockwork_clock_read().monotonic + ANSWER_USEC;
	CancelAnswer answer = CANCEL_UNANSWERED;
	uint64		ticket;
	long		left;

	ConditionVariablePrepareToSleep(given);
	while (!post_cancel(runid, by, grace, &ticket))
	{
		if ((left = ms_until(until)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not cancel run " INT64_FORMAT ": too many cancellations wait for the launcher",
							runid),
					 errhint("See the server log for what keeps the launcher busy.")));
		(void) ConditionVariableTimedSleep(given, left, wait_event());
	}
	clockwork_shmem_wake_launcher();
	while ((answer = read_answer(ticket)) == CANCEL_UNANSWERED && (left = ms_until(until)) > 0)
		(void) ConditionVariableTimedSleep(given, left, wait_event());
	ConditionVariableCancelSleep();
	return answer;
}

uint64
clockwork_run_request_ends(void)
{
	uint64		nends;

	lock_board(LW_SHARED);
	nends = board()->nends;
	unlock_board();
	return nends;
}

/* Has the run ended since, or can that not be told any more? */
static bool
has_ended(int64 runid, uint64 *seen)
{
	RequestBoard *from = board();
	bool		found;

	lock_board(LW_SHARED);
	found = from->nends - *seen > CLOCKWORK_MAX_ENDS;
	for (uint64 i = *seen; !found && i < from->nends; i++)
		found = runid == 0 || from->ends[i % CLOCKWORK_MAX_ENDS] == 0 ||
			from->ends[i % CLOCKWORK_MAX_ENDS] == runid;
	*seen = from->nends;
	unlock_board();
	return found;
}

void
clockwork_run_request_wait(int64 runid, uint64 *seen, int64 until)
{
	ConditionVariable *ended = &board()->run_ended;
	long		left;

	ConditionVariablePrepareToSleep(ended);
	while (!has_ended(runid, seen) && (left = ms_until(until)) > 0)
		(void) ConditionVariableTimedSleep(ended, left, wait_event());
	ConditionVariableCancelSleep();
}

/* ---- in the launcher ---- */

int
clockwork_run_request_take(int64 *runids, int64 *from)
{
	RequestBoard *of = board();
	int			count;

	lock_board(LW_EXCLUSIVE);
	count = of->nrequests;
	memcpy(runids, of->requests, count * sizeof(int64));
	*from = of->requests_from;
	of->nrequests = 0;
	of->requests_from = 0;
	unlock_board();
	return count;
}

bool
clockwork_run_request_take_pause(void)
{
	bool		changed;

	lock_board(LW_EXCLUSIVE);
	changed = board()->pause_changed;
	board()->pause_changed = false;
	unlock_board();
	return changed;
}

/* A pause that has been committed but not read yet counts as one. */
bool
clockwork_run_request_is_held(void)
{
	bool		held;

	lock_board(LW_SHARED);
	held = board()->holds > 0 || board()->pause_changed;
	unlock_board();
	return held;
}

uint64
clockwork_run_request_first_cancel(void)
{
	uint64		ticket;

	lock_board(LW_SHARED);
	ticket = board()->answered;
	unlock_board();
	return ticket;
}

bool
clockwork_run_request_find_cancel(uint64 ticket, CancelRequest *found)
{
	bool		has_come;

	lock_board(LW_SHARED);
	has_come = ticket < board()->posted;
	if (has_come)
		*found = board()->cancels[ticket % CLOCKWORK_MAX_CANCELS];
	unlock_board();
	return has_come;
}

void
clockwork_run_request_answer(uint64 ticket, CancelAnswer answer)
{
	RequestBoard *to = board();

	lock_board(LW_EXCLUSIVE);
	Assert(ticket == to->answered && ticket < to->posted);
	to->cancels[ticket % CLOCKWORK_MAX_CANCELS].answer = answer;
	to->answered = ticket + 1;
	unlock_board();
	ConditionVariableBroadcast(&to->answer_given);
}

void
clockwork_run_request_note_end(int64 runid)
{
	RequestBoard *to = board();

	lock_board(LW_EXCLUSIVE);
	to->ends[to->nends % CLOCKWORK_MAX_ENDS] = runid;
	to->nends++;
	unlock_board();
	has_news = true;
}

void
clockwork_run_request_begin_pass(void)
{
	RequestBoard *to = board();

	lock_board(LW_EXCLUSIVE);
	is_held_pass = to->holds > 0;
	to->passes += is_held_pass;
	unlock_board();
}

void
clockwork_run_request_end_pass(void)
{
	/* Who waits for all runs to be over looks at the slots himself. */
	if (is_held_pass)
		clockwork_run_request_note_end(0);
	if (has_news)
		ConditionVariableBroadcast(&board()->run_ended);
	has_news = false;
}
