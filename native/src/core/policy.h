/*
 * The rules of a job's options, as pure functions: state and event in,
 * decision out.
 *
 * Nothing here reads a clock, allocates, or does anything: the launcher asks,
 * and executes what it is told; the simulator asks the same questions about
 * years of schedules.  The rules themselves are told in docs/policies.md.
 *
 * Every time is in microseconds.  Instants may be of any clock, as long as
 * those of one question are of the same one; due times are always counted
 * from 1970-01-01 00:00 UTC, because what is derived from them by hash must be
 * the same everywhere.
 */
#ifndef CLOCKWORK_CORE_POLICY_H
#define CLOCKWORK_CORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Never: an instant after all others. */
#define POLICY_NEVER INT64_MAX

/* A point of priority is worth this much waiting, so that nothing starves. */
#define POLICY_PRIORITY_USEC ((int64_t) 60 * 1000000)

/* A due time noticed later than this was missed, and is not merely late. */
#define POLICY_MISSED_AFTER_USEC ((int64_t) 60 * 1000000)

/* So many missed due times of a job are made up for, the newest ones. */
#define POLICY_CATCH_UP_MAX 1000

/* So many missed due times of a job are counted; more are "more than". */
#define POLICY_COUNT_MAX 1000

typedef enum PolicyOverlap
{
	POLICY_QUEUE,
	POLICY_SKIP,
	POLICY_REPLACE,
	POLICY_PARALLEL
} PolicyOverlap;

typedef enum PolicyMissed
{
	POLICY_MISSED_SKIP,
	POLICY_MISSED_ONCE,
	POLICY_MISSED_ALL
} PolicyMissed;

/* The options of one job. */
typedef struct PolicyRules
{
	PolicyOverlap on_overlap;
	int			max_parallel;	/* with POLICY_PARALLEL; 0: the cap over all */
	PolicyMissed on_missed;
	int64_t		start_deadline; /* 0: none */
	int64_t		timeout;		/* 0: none */
	int			max_attempts;	/* at least 1 */
	int64_t		retry_delay;	/* 0: at once */
	const char *retry_on;		/* SQLSTATEs and classes, a blank between two;
								 * NULL: any error */
	int64_t		jitter;			/* 0: none */
	int			priority;
	int64_t		starts_at;		/* no due time before; INT64_MIN: no bound */
	int64_t		ends_at;		/* none after; POLICY_NEVER: no bound */
	int			pause_after;	/* 0: never */
} PolicyRules;

/* What holds for all jobs. */
typedef struct PolicyLimits
{
	int			max_running;	/* at least 1 */
	int			max_running_per_role;	/* 0: no limit */
	int64_t		grace;			/* between canceling and terminating */
	int64_t		max_retry_delay;	/* the doubling ends here */
} PolicyLimits;

/* The rules of a job without options. */
extern void clockwork_policy_defaults(PolicyRules *rules);

/* ---- when: bounds, jitter, missed due times ---- */

/* The instant after which the next due time after `after` is to be looked for. */
extern int64_t clockwork_policy_look_after(const PolicyRules *rules, int64_t after);

/* Is this due time within starts_at and ends_at? */
extern bool clockwork_policy_in_bounds(const PolicyRules *rules, int64_t due);

/*
 * How long after its due time a run starts: the job's jitter.  It depends on
 * the job and the due time alone, is at least 0 and less than the jitter and
 * than the gap to the next due time (POLICY_NEVER if there is none), so runs
 * keep their order.
 */
extern int64_t clockwork_policy_offset(const PolicyRules *rules, int64_t jobid,
									   int64_t due, int64_t next_due);

/*
 * The due times of a job, one after the other.  Gives the first one after the
 * due time `after`, and when its run is to start; false if there is none.
 */
typedef struct PolicyWalk
{
	bool		(*next) (void *arg, int64_t after, int64_t *due, int64_t *start);
	void	   *arg;
} PolicyWalk;

/* What becomes of due times that were missed. */
typedef struct PolicyCatchUp
{
	int			dropped;		/* so many get no run; one record counts them */
	bool		is_more;		/* they are more than that */
	int64_t		first_dropped;	/* the first and last of those; valid if */
	int64_t		last_dropped;	/* dropped > 0 */
	int			kept;			/* so many get a run, oldest first */
	int64_t		due[POLICY_CATCH_UP_MAX];
} PolicyCatchUp;

/*
 * The due times after the due time `after` whose start is not later than
 * `horizon` were missed: what becomes of them?  `now` is the present.
 */
extern void clockwork_policy_catch_up(const PolicyRules *rules, const PolicyWalk *walk,
									  int64_t after, int64_t horizon, int64_t now,
									  PolicyCatchUp *plan);

/* ---- whether: overlap, deadline, caps ---- */

/*
 * What is left of earlier due times of a job when the next one comes.  Second
 * and later attempts that have not started do not count: they are given up.
 */
typedef struct PolicyLoad
{
	int			running;		/* runs that have started and not ended */
	int			unstarted;		/* runs that wait, for a slot or for another one */
	int			catching_up;	/* those that wait because their due time was
								 * missed: not among `unstarted` */
} PolicyLoad;

typedef enum PolicyArrival
{
	POLICY_TAKE,				/* it gets a run, the last in the job's line */
	POLICY_DROP,				/* no run: recorded as skipped */
	POLICY_TAKE_OVER			/* it gets a run; what runs is stopped, and what
								 * has not started is skipped */
} PolicyArrival;

extern PolicyArrival clockwork_policy_arrive(const PolicyRules *rules,
											 const PolicyLimits *limits,
											 const PolicyLoad *load);

/*
 * How many runs of the job may be under way at once, from being ready for a
 * slot until their end.  The others wait in line.
 */
extern int	clockwork_policy_width(const PolicyRules *rules, const PolicyLimits *limits);

/* Until when a run that should start at `start` may do so; POLICY_NEVER: for ever. */
extern int64_t clockwork_policy_deadline(const PolicyRules *rules, int64_t start);

/* May one more run start, of a role that has so many going? */
extern bool clockwork_policy_may_start(const PolicyLimits *limits, int running,
									   int running_of_role);

/* Who starts first: the smaller.  Age counts, so that nothing starves. */
extern int64_t clockwork_policy_rank(const PolicyRules *rules, int64_t start);

/* ---- how long: timeout ---- */

typedef enum PolicyAction
{
	POLICY_LEAVE,
	POLICY_CANCEL,
	POLICY_TERMINATE
} PolicyAction;

typedef struct PolicyWatch
{
	PolicyAction action;
	int64_t		look_again;		/* POLICY_NEVER: no need */
} PolicyWatch;

/*
 * What to do now with a run that began at `began`, has been told to stop at
 * `stopped` (POLICY_NEVER: not yet), and was last terminated at `terminated`
 * (likewise).  A run that outlives being canceled for the length of `grace` is
 * terminated, again and again after that time.
 */
extern PolicyWatch clockwork_policy_watch(int64_t timeout, int64_t grace, int64_t began,
										  int64_t stopped, int64_t terminated, int64_t now);

/* ---- what follows: retries, pausing ---- */

typedef enum PolicyOutcome
{
	POLICY_SUCCEEDED,
	POLICY_FAILED,				/* an error, a timeout */
	POLICY_CRASHED,				/* nobody could say how it ended */
	POLICY_CANCELED				/* somebody wanted it to end */
} PolicyOutcome;

/*
 * When the next attempt at a due time begins, POLICY_NEVER if there is none.
 * `attempt` ended at `now`, with the SQLSTATE `sqlstate` (NULL or five
 * characters).  `next_start` is when the run of the job's next due time after
 * `due` is to start (POLICY_NEVER if there is none), in the same clock as
 * `now`: no attempt begins after that.
 */
extern int64_t clockwork_policy_retry(const PolicyRules *rules, const PolicyLimits *limits,
									  int64_t jobid, int64_t due, int64_t next_start,
									  int attempt, PolicyOutcome outcome,
									  const char *sqlstate, int64_t now);

/* The number of failures in a row, after the final outcome of another due time. */
extern int	clockwork_policy_streak(int streak, PolicyOutcome outcome);

/* Is that so many that the job pauses? */
extern bool clockwork_policy_must_pause(const PolicyRules *rules, int streak);

/* Is it a SQLSTATE of an error, or its class (the first two characters)? */
extern bool clockwork_policy_is_sqlstate(const char *text);

#endif							/* CLOCKWORK_CORE_POLICY_H */
