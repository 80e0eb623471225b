/*
 * Keeping the launcher's jobs in step with cron.job.
 */
#ifndef CLOCKWORK_JOB_SYNC_H
#define CLOCKWORK_JOB_SYNC_H

/* Prepare; call once, before the first sync. */
extern void clockwork_job_sync_init(void);

/*
 * Read the jobs that changed since the last call, or all of them; the first
 * time also deal with what a former launcher left.  Costs nothing if nothing
 * changed.  Raises errors: then everything is read again the next time.
 */
extern void clockwork_job_sync(void);

/*
 * Take in the runs that people asked for.  Costs nothing if there are none.
 * Raises errors: then it is tried again, and what is known goes on.
 */
extern void clockwork_job_sync_requests(void);

/* Are the jobs known, and what a former launcher left dealt with? */
extern bool clockwork_job_sync_is_loaded(void);

/*
 * Close the records that a former launcher left open, once after the first
 * load.  May raise errors, and is then tried again; needs no transaction.
 */
extern void clockwork_job_sync_close_orphans(void);

/*
 * After that, do the same for older records, a part of them in each call.  May
 * raise errors, and is then tried again; needs no transaction.
 */
extern void clockwork_job_sync_look_back(void);

/*
 * After that, find out from the history what is to follow in jobs with retries
 * or pause_after.  The same in errors.
 */
extern void clockwork_job_sync_rebuild(void);

#endif							/* CLOCKWORK_JOB_SYNC_H */
