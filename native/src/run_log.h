/*
 * Writing cron.job_run_details: the life of a run record.
 *
 * Called by the launcher inside a transaction and an extension section of
 * its own; any number of records share them.  Texts are given in the server
 * encoding unless said otherwise.
 *
 * A record that cron.job_run_details would not take (the table is locked, a
 * user's trigger refuses it) is kept in cron.record_backlog, which has the same
 * columns, and moved when it can be.  While both have a record of a run, that
 * of the backlog is the newer one.
 */
#ifndef CLOCKWORK_RUN_LOG_H
#define CLOCKWORK_RUN_LOG_H

#include "datatype/timestamp.h"
#include "tcop/cmdtag.h"

/* Which run a record is about. */
typedef struct RunIdentity
{
	int64		jobid;			/* 0 for a run without a job */
	TimestampTz due_time;		/* 0 if it has none */
	int32		attempt;
	const char *trigger;		/* schedule, retry, catch_up, manual, ... */
	const char *database;
	const char *username;
	const char *command;
	const char *label;			/* NULL if it has none */
	const char *requested_by;	/* the role that asked for it; NULL: nobody did */
} RunIdentity;

/* How a run ended, or why it never began. */
typedef struct RunEnding
{
	const char *status;			/* succeeded, failed or skipped; in the backlog also
								 * queued or starting */
	const char *reason;			/* NULL for what needs none */
	int			sqlerrcode;		/* 0 for none */
	int			elevel;			/* of the error; 0 for none */
	const char *message;		/* of the error, or the command tag with count */
	const char *detail;
	const char *hint;
	const char *context;
	const char *command_tag;	/* NULL if no statement completed */
	bool		has_rows;
	uint64		rows;
	const char *notify;			/* channel on which to tell it; NULL: none */
	int			pid;			/* 0 if no worker attached */
	TimestampTz start_time;		/* 0 if the command did not begin */
	TimestampTz end_time;
	const char *effects;		/* where the status does not tell: "none" or
								 * "unknown"; else NULL */
} RunEnding;

/* What the attempt to close a record found. */
typedef enum RunRecordFound
{
	RECORD_CLOSED,				/* it was open, and is closed now */
	RECORD_SUCCEEDED,			/* it said already that the run succeeded */
	RECORD_FINAL,				/* it said something else that is final */
	RECORD_MISSING				/* there is none */
} RunRecordFound;

/*
 * How a run that was asked for goes with the others of its job.  While it is
 * queued, the reason of its record says what differs from the job's own rule.
 */
typedef enum RunOrder
{
	RUN_AS_JOB,
	RUN_ALONE,					/* "one_by_one": none beside it */
	RUN_BESIDE_OTHERS			/* "in_parallel": up to max_parallel at once */
} RunOrder;

/* The reason for an order; NULL for RUN_AS_JOB. */
extern const char *clockwork_run_log_order(RunOrder order);

/* A record of a run that has not ended. */
typedef struct OpenRecord
{
	int64		runid;
	int64		jobid;
	TimestampTz due_time;
	int32		attempt;
	const char *trigger;		/* a constant */
	bool		is_starting;	/* not merely queued */
	bool		is_awaiting;	/* queued until runs of other jobs have ended */
	bool		asked;			/* somebody asked for it */
	RunOrder	order;
} OpenRecord;

/* An attempt of a job that has ended. */
typedef struct PastRun
{
	TimestampTz due_time;
	int32		attempt;
	const char *trigger;		/* a constant */
	bool		succeeded;		/* else it failed */
	const char *reason;			/* NULL if it has none */
	const char *sqlstate;		/* likewise */
	TimestampTz end_time;
} PastRun;

/*
 * The newest attempts of a job at due times after `since` that have ended and
 * were no mere skips, at most `most` of them, newest due time first, then
 * latest attempt first; in the memory context that was current before the
 * section.
 */
extern PastRun *clockwork_run_log_past(int64 jobid, TimestampTz since, int most, int *count);

/*
 * Insert the record of a run that is starting.  `pid`: the process that waits
 * for it, should there be one; 0: none.  Returns its runid, or 0 if this due time
 * and attempt has its record already.
 */
extern int64 clockwork_run_log_insert(const RunIdentity *run, int pid);

/*
 * From here on, new records of this history are expected to have no predecessor,
 * which is cheaper: one that has raises a unique violation.  And they may be
 * gathered, with their runids known, until clockwork_run_log_insert_gathered, in
 * the same transaction and section, inserts them together.
 */
extern void clockwork_run_log_expect_none(Oid history);
extern void clockwork_run_log_expect_some(void);
extern void clockwork_run_log_insert_gathered(void);

/* The same of a run that is queued, with a reason and a message that say what it waits for. */
extern int64 clockwork_run_log_insert_queued(const RunIdentity *run, const RunEnding *state);

/* It waits for them no longer, but for its turn; or it begins once more. */
extern void clockwork_run_log_queue(int64 runid);

/* What the table knows of one due time of a job. */
typedef struct LatestRecord
{
	int64		jobid;
	int64		runid;
	const char *status;
	const char *reason;			/* NULL for none */
} LatestRecord;

/*
 * The record of the last attempt at that due time, for each of the jobs that
 * has one.  In the memory context that was current before the section.
 */
extern LatestRecord *clockwork_run_log_find_latest(const int64 *jobids, int njobs,
												   TimestampTz due_time, int *count);

/* Insert a record that is final from the start; the same return value. */
extern int64 clockwork_run_log_insert_ended(const RunIdentity *run, const RunEnding *ending);

/* A queued run starts: status "starting", the process, and the command as it is now. */
extern void clockwork_run_log_start(int64 runid, const RunIdentity *run, int pid);

/*
 * The worker has begun the command.  `in_doubt`: should its end not be seen,
 * its effects may have been committed all the same.  A record that somebody
 * has locked is left as it is.
 */
extern void clockwork_run_log_running(int64 runid, int pid, TimestampTz start_time,
									  bool in_doubt);

/*
 * The end of a run, unless its record is final already: then that is the
 * truth.
 */
extern RunRecordFound clockwork_run_log_finish(int64 runid, const RunEnding *ending);

/*
 * The same, by the run itself.  A record that somebody has locked is left as
 * it is, and counts as final.
 */
extern RunRecordFound clockwork_run_log_finish_unlocked(int64 runid, const RunEnding *ending);

/*
 * The record of a run that has ended is gone: write it again, complete.  Does
 * nothing if there is one by now.
 */
extern void clockwork_run_log_restore(int64 runid, const RunIdentity *run,
									  const RunEnding *ending);

/* Set what a record says of success: all but pid and times. */
extern void clockwork_run_log_describe_success(RunEnding *ending, CommandTag tag,
											   bool has_rows, uint64 rows);

/*
 * Keep a record in the backlog: a new one, with a new runid, if `runid` is 0,
 * else what is now to be said of that run.  Returns its runid.
 */
extern int64 clockwork_run_log_keep(int64 runid, const RunIdentity *run, const RunEnding *ending);

/* The first runids in the backlog above `after`, at most `most`: their number. */
extern int	clockwork_run_log_backlog(int64 after, int64 *runids, int most);

/* Move records from the backlog to the history. */
extern void clockwork_run_log_catch_up(const int64 *runids, int count);

/*
 * The latest due time from `from` on whose record is final (with `only_succeeded`:
 * that has succeeded), not counting runs that somebody asked for; 0 if there is none.
 */
extern TimestampTz clockwork_run_log_newest_final(int64 jobid, TimestampTz from, bool only_succeeded);

/*
 * Remove final records of a job (with `only_succeeded`: of runs that succeeded) for
 * due times from `from` on and before `to`, oldest first and at most `most`: how
 * many were there.  What somebody asked for stays, and what somebody has locked.
 */
extern int	clockwork_run_log_trim(int64 jobid, TimestampTz from, TimestampTz to,
								   bool only_succeeded, int most);

/*
 * Insert a record that says why a job cannot run, unless its newest record
 * says just that.
 */
extern void clockwork_run_log_problem(const RunIdentity *run, const RunEnding *ending);

/*
 * The latest due time of the newest records: until then there was a launcher.
 * 0 if there is none.
 */
extern TimestampTz clockwork_run_log_newest_due_time(void);

/* A due time that has its record. */
typedef struct Recorded
{
	int64		jobid;
	TimestampTz due_time;
} Recorded;

/*
 * The due times of jobs in the newest `most` records, earliest first; of what somebody
 * asked for, none.  In the memory context that was current before the section.
 */
extern Recorded *clockwork_run_log_newest_recorded(int most, int *count);

/* Has there ever been a record? */
extern bool clockwork_run_log_was_used(void);

/* Some records, by their runids: after the one, up to the other. */
typedef struct RunRange
{
	int64		after;
	int64		up_to;
} RunRange;

/*
 * The records of jobs in the range that are still open as queued or starting,
 * oldest due time first, in the memory context that was current before the section.
 */
extern OpenRecord *clockwork_run_log_open_records(RunRange range, int *count);

/* The runid of the record that has `n` newer ones; 0 if there is none. */
extern int64 clockwork_run_log_find_nth_newest(int n);

/*
 * The range of the `most` records that end at `up_to`, or of all if there are no
 * more; may any of those be open?
 */
extern RunRange clockwork_run_log_look_back(int64 up_to, int most, bool *has_open);

/* The newest runid given to a record. */
extern int64 clockwork_run_log_newest_runid(void);

/*
 * The queued records among those runids, and all from `from` on unless that is
 * 0, that somebody asked for; order and memory as above.
 */
extern OpenRecord *clockwork_run_log_requests(const int64 *runids, int nrunids, int64 from,
											  int *count);

/* What a record says now, for those who look from outside. */
typedef struct RunLook
{
	int64		jobid;			/* 0: none */
	Oid			owner;			/* InvalidOid: a role that is not there */
	char	   *status;
	char	   *trigger;
	char	   *label;
	char	   *requested_by;
	bool		is_ours;		/* written by this very transaction */
} RunLook;

/*
 * Look at a record as it is at this instant, whatever the transaction's
 * snapshot: false if there is none.  Memory as above.
 */
extern bool clockwork_run_log_look(int64 runid, RunLook *look);

/* Is that status one that does not change any more? */
extern bool clockwork_run_log_is_final(const char *status);

/*
 * A queued record that this very transaction has written will not become a
 * run: cancelled by that role.
 */
extern void clockwork_run_log_cancel(int64 runid, const char *by);

/* The word for what made a run, as a constant. */
extern const char *clockwork_run_log_trigger(const char *text);

/* Remove the record of a run that is not to start after all, if it is open. */
extern void clockwork_run_log_withdraw(int64 runid);

/*
 * Close every open record in the range whose runid is not among `live`: runs
 * that had begun are failed, the others skipped, both with reason
 * server_restart; or, where the record is of an older WAL timeline, because
 * this server was a standby then, with reason failover.  Those whose runid is
 * among `harmless` had no effects.  Queued ones that somebody asked for are
 * closed only up to `asked`: the others wait to be taken in.  Returns how many
 * were closed.
 */
extern uint64 clockwork_run_log_close_orphans(const int64 *live, int count, RunRange range, int64 asked,
											  const int64 *harmless, int nharmless);

/*
 * Visit the open records in the range of runs in this database that had
 * begun and whose effects, by what the record says, are not in doubt.
 */
typedef void (*BegunVisitor) (int64 runid, const char *command, void *arg);
extern void clockwork_run_log_visit_begun(RunRange range, BegunVisitor visit, void *arg);

/*
 * Tell the channel what the record of that run says; the listeners hear it
 * when the transaction commits.  Called after a final record was written, in
 * the same transaction and an extension section.  Never fails, but a full
 * queue of notifications makes the commit fail: so nothing is sent, and a
 * warning given, if it is nearly full.
 */
extern void clockwork_run_log_notify(int64 runid, const char *channel);

/* Send nothing until told otherwise; was anything sent since? */
extern void clockwork_run_log_mute(bool mute);
extern bool clockwork_run_log_has_notified(void);

/*
 * Text from a worker's database, in the server encoding: what cannot be
 * converted becomes "?", never an error.  NULL gives NULL.
 */
extern char *clockwork_run_log_convert(const char *text, int encoding);

#endif							/* CLOCKWORK_RUN_LOG_H */
