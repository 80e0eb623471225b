/*
 * The rules of a job's options.
 */
#include <string.h>

#include "policy.h"

/* A retry's delay is spread by up to an eighth either way. */
#define RETRY_SPREAD 8

/* What an attempt has that nobody could say the end of: crash_shutdown. */
#define CRASH_SQLSTATE "57P02"

static int64_t
add(int64_t a, int64_t b)
{
	if (b > 0 && a > INT64_MAX - b)
		return INT64_MAX;
	if (b < 0 && a < INT64_MIN - b)
		return INT64_MIN;
	return a + b;
}

/* Every bit of the result depends on every bit of the three numbers. */
static uint64_t
mix(int64_t a, int64_t b, int64_t c)
{
	const int64_t words[] = {a, b, c};
	uint64_t	hash = UINT64_C(0x9e3779b97f4a7c15);

	for (int i = 0; i < 3; i++)
	{
		hash ^= (uint64_t) words[i];
		hash *= UINT64_C(0xd6e8feb86659fd93);
		hash ^= hash >> 32;
		hash *= UINT64_C(0xd6e8feb86659fd93);
		hash ^= hash >> 29;
	}
	return hash;
}

void
clockwork_policy_defaults(PolicyRules *rules)
{
	memset(rules, 0, sizeof(*rules));
	rules->on_overlap = POLICY_QUEUE;
	rules->on_missed = POLICY_MISSED_SKIP;
	rules->max_attempts = 1;
	rules->retry_delay = (int64_t) 60 * 1000000;
	rules->starts_at = INT64_MIN;
	rules->ends_at = POLICY_NEVER;
}

/* ---- when ---- */

int64_t
clockwork_policy_look_after(const PolicyRules *rules, int64_t after)
{
	int64_t		before_start = add(rules->starts_at, -1);

	return after < before_start ? before_start : after;
}

bool
clockwork_policy_in_bounds(const PolicyRules *rules, int64_t due)
{
	return due >= rules->starts_at && due <= rules->ends_at;
}

int64_t
clockwork_policy_offset(const PolicyRules *rules, int64_t jobid, int64_t due, int64_t next_due)
{
	int64_t		span = rules->jitter;

	if (next_due != POLICY_NEVER && next_due - due < span)
		span = next_due - due;
	if (span <= 0)
		return 0;
	return (int64_t) (mix(jobid, due, 0) % (uint64_t) span);
}

/* How many missed due times get a run. */
static int
catch_up_most(const PolicyRules *rules)
{
	switch (rules->on_missed)
	{
		case POLICY_MISSED_ONCE:
			return 1;
		case POLICY_MISSED_ALL:
			return POLICY_CATCH_UP_MAX;
		case POLICY_MISSED_SKIP:
			break;
	}
	return 0;
}

static void
drop(PolicyCatchUp *plan, int64_t due)
{
	if (plan->dropped == 0)
		plan->first_dropped = due;
	plan->last_dropped = due;
	if (plan->dropped < POLICY_COUNT_MAX)
		plan->dropped++;
	else
		plan->is_more = true;
}

/* One more missed due time, later than those before. */
static void
miss(const PolicyRules *rules, int64_t due, int64_t start, int64_t now, PolicyCatchUp *plan)
{
	int			most = catch_up_most(rules);

	if (most == 0 || clockwork_policy_deadline(rules, start) < now)
	{
		drop(plan, due);
		return;
	}
	if (plan->kept == most)
	{
		drop(plan, plan->due[0]);
		memmove(&plan->due[0], &plan->due[1], sizeof(plan->due[0]) * (most - 1));
		plan->kept--;
	}
	plan->due[plan->kept++] = due;
}

/*
 * Take in the due times after `after`, up to the horizon, but not more than
 * `most` of them.  Returns how far it came: the last one taken in, or
 * POLICY_NEVER if that was the last one there is.
 */
static int64_t
take_in(const PolicyRules *rules, const PolicyWalk *walk, int64_t after, int64_t horizon,
		int64_t now, int most, PolicyCatchUp *plan)
{
	int64_t		due;
	int64_t		start;

	for (int i = 0; i < most; i++)
	{
		if (!walk->next(walk->arg, after, &due, &start) || start > horizon)
			return POLICY_NEVER;
		miss(rules, due, start, now, plan);
		after = due;
	}
	return after;
}

/* Are there more than `most` missed due times after `after`? */
static bool
is_more_than(const PolicyWalk *walk, int64_t after, int64_t horizon, int most)
{
	int64_t		start;

	for (int i = 0; i <= most; i++)
		if (!walk->next(walk->arg, after, &after, &start) || start > horizon)
			return false;
	return true;
}

/*
 * There may be far more missed due times than are worth a look (a job of
 * every second, a year of being down).  The newest ones are found by looking
 * back from the horizon, further and further, until there are enough.
 */
void
clockwork_policy_catch_up(const PolicyRules *rules, const PolicyWalk *walk, int64_t after,
						  int64_t horizon, int64_t now, PolicyCatchUp *plan)
{
	int64_t		back = POLICY_MISSED_AFTER_USEC;
	int64_t		from;

	plan->dropped = 0;
	plan->is_more = false;
	plan->kept = 0;
	plan->first_dropped = 0;
	plan->last_dropped = 0;

	from = take_in(rules, walk, after, horizon, now, POLICY_COUNT_MAX, plan);
	if (from == POLICY_NEVER)
		return;

	/* Jump, if that leaves out nothing but what is dropped in any case. */
	while (add(horizon, -back) > from &&
		   !is_more_than(walk, horizon - back, horizon, catch_up_most(rules)))
		back *= 2;
	if (add(horizon, -back) > from)
	{
		for (int i = 0; i < plan->kept; i++)
			drop(plan, plan->due[i]);
		plan->kept = 0;
		plan->is_more = true;
		from = horizon - back;
	}
	while (from != POLICY_NEVER)
		from = take_in(rules, walk, from, horizon, now, POLICY_COUNT_MAX, plan);
}

/* ---- whether ---- */

int
clockwork_policy_width(const PolicyRules *rules, const PolicyLimits *limits)
{
	if (rules->on_overlap != POLICY_PARALLEL)
		return 1;
	if (rules->max_parallel > 0 && rules->max_parallel < limits->max_running)
		return rules->max_parallel;
	return limits->max_running;
}

PolicyArrival
clockwork_policy_arrive(const PolicyRules *rules, const PolicyLimits *limits,
						const PolicyLoad *load)
{
	int			busy = load->running + load->unstarted;

	switch (rules->on_overlap)
	{
		case POLICY_SKIP:
			return busy + load->catching_up > 0 ? POLICY_DROP : POLICY_TAKE;
		case POLICY_REPLACE:
			return POLICY_TAKE_OVER;
		case POLICY_PARALLEL:
			return busy >= clockwork_policy_width(rules, limits) ? POLICY_DROP : POLICY_TAKE;
		case POLICY_QUEUE:
			break;
	}
	return load->unstarted > 0 ? POLICY_DROP : POLICY_TAKE;
}

int64_t
clockwork_policy_deadline(const PolicyRules *rules, int64_t start)
{
	return rules->start_deadline > 0 ? add(start, rules->start_deadline) : POLICY_NEVER;
}

bool
clockwork_policy_may_start(const PolicyLimits *limits, int running, int running_of_role)
{
	return running < limits->max_running &&
		(limits->max_running_per_role <= 0 || running_of_role < limits->max_running_per_role);
}

int64_t
clockwork_policy_rank(const PolicyRules *rules, int64_t start)
{
	return add(start, -(int64_t) rules->priority * POLICY_PRIORITY_USEC);
}

/* ---- how long ---- */

PolicyWatch
clockwork_policy_watch(int64_t timeout, int64_t grace, int64_t began, int64_t stopped,
					   int64_t terminated, int64_t now)
{
	PolicyWatch watch = {POLICY_LEAVE, POLICY_NEVER};

	if (stopped == POLICY_NEVER)
	{
		if (timeout <= 0)
			return watch;
		watch.look_again = add(began, timeout);
		if (watch.look_again > now)
			return watch;
		watch.action = POLICY_CANCEL;
		watch.look_again = add(now, grace);
		return watch;
	}
	watch.look_again = add(terminated == POLICY_NEVER ? stopped : terminated, grace);
	if (watch.look_again > now)
		return watch;
	watch.action = POLICY_TERMINATE;

	/* Even without a grace period there is time between two signals. */
	watch.look_again = add(now, grace > 1000000 ? grace : 1000000);
	return watch;
}

/* ---- what follows ---- */

bool
clockwork_policy_is_sqlstate(const char *text)
{
	size_t		length = strlen(text);

	if (length != 2 && length != 5)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'A' && text[i] <= 'Z')))
			return false;

	/* 00, 01 and 02 are no errors. */
	return !(text[0] == '0' && text[1] >= '0' && text[1] <= '2');
}

/* Is this error among those that are worth another attempt? */
static bool
is_listed(const char *list, const char *sqlstate)
{
	if (list == NULL)
		return true;
	while (*list)
	{
		size_t		length = strcspn(list, " ");

		if (length > 0 && strncmp(list, sqlstate, length) == 0)
			return true;
		list += length;
		list += strspn(list, " ");
	}
	return false;
}

/* The delay after an attempt: doubled each time, up to a cap, and spread. */
static int64_t
retry_delay(const PolicyRules *rules, const PolicyLimits *limits, int64_t jobid, int64_t due,
			int attempt)
{
	int64_t		cap = limits->max_retry_delay;
	int64_t		delay = rules->retry_delay;
	int64_t		spread;

	if (cap < delay)
		cap = delay;
	for (int i = 1; i < attempt && delay > 0 && delay < cap; i++)
		delay = delay > cap / 2 ? cap : delay * 2;
	spread = delay / RETRY_SPREAD;
	if (spread > 0)
		delay += (int64_t) (mix(jobid, due, attempt) % (uint64_t) (2 * spread)) - spread;
	return delay;
}

int64_t
clockwork_policy_retry(const PolicyRules *rules, const PolicyLimits *limits, int64_t jobid,
					   int64_t due, int64_t next_start, int attempt, PolicyOutcome outcome,
					   const char *sqlstate, int64_t now)
{
	int64_t		at;

	if (outcome == POLICY_SUCCEEDED || outcome == POLICY_CANCELED ||
		attempt >= rules->max_attempts)
		return POLICY_NEVER;
	if (outcome == POLICY_CRASHED || sqlstate == NULL)
		sqlstate = CRASH_SQLSTATE;
	if (!is_listed(rules->retry_on, sqlstate))
		return POLICY_NEVER;
	at = add(now, retry_delay(rules, limits, jobid, due, attempt));
	return at < next_start ? at : POLICY_NEVER;
}

int
clockwork_policy_streak(int streak, PolicyOutcome outcome)
{
	switch (outcome)
	{
		case POLICY_SUCCEEDED:
			return 0;
		case POLICY_FAILED:
		case POLICY_CRASHED:
			return streak < INT32_MAX ? streak + 1 : streak;
		case POLICY_CANCELED:
			break;
	}
	return streak;
}

bool
clockwork_policy_must_pause(const PolicyRules *rules, int streak)
{
	return rules->pause_after > 0 && streak >= rules->pause_after;
}
