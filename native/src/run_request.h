/*
 * The way a session's wish reaches the launcher, and the answer comes back.
 *
 * A run that is asked for is a record with status "queued": that row is what
 * counts, and only its number travels, when its transaction has committed.  A
 * cancellation travels at once and is answered.  Whoever waits for the end of
 * a run sleeps until the launcher says that it has ended.
 */
#ifndef CLOCKWORK_RUN_REQUEST_H
#define CLOCKWORK_RUN_REQUEST_H

#include "shmem.h"

/* ---- in a session ---- */

/*
 * Runs of that cron.job are about to be asked for in this transaction: call it
 * before their records get their numbers.  `draw` gives a new runid.
 */
extern void clockwork_run_request_prepare(Oid job_table, int64 (*draw) (void));

/* A queued record was written: tell the launcher, if and when it commits. */
extern void clockwork_run_request_note(int64 runid);

/*
 * Cancel a run, now, and wait for the answer, at most 10 seconds: then it is
 * CANCEL_UNANSWERED, and still stands.  `grace` in microseconds, < 0: for
 * ever.  Error if too many cancellations wait.
 */
extern CancelAnswer clockwork_run_request_cancel(int64 runid, const char *by, int64 grace);

/* How many runs have ended: take it before looking at a record. */
extern uint64 clockwork_run_request_ends(void);

/*
 * Sleep until that run has ended since `*seen`, which moves on, or until
 * `until` (monotonic).  A runid of 0 stands for any.  May return early.
 */
extern void clockwork_run_request_wait(int64 runid, uint64 *seen, int64 until);

/* Keep runs from starting, now, until the end of this transaction. */
extern void clockwork_run_request_hold(void);

/* Passes that the launcher has begun while runs were held. */
extern uint64 clockwork_run_request_passes(void);

/* cron.pause_state was changed: tell the launcher, if and when that commits. */
extern void clockwork_run_request_note_pause(void);

/* ---- in the launcher ---- */

/*
 * Take the runs asked for: returns how many were copied to `runids` (room for
 * CLOCKWORK_MAX_REQUESTS); `*from`, if not 0, stands for all from there on.
 */
extern int	clockwork_run_request_take(int64 *runids, int64 *from);

/*
 * Requests with runids above were made in this life of the server; those up to
 * it are left over.  0 if none has been made for that cron.job.
 */
extern int64 clockwork_run_request_first(Oid job_table);

/* Was cron.pause_state changed since the last call? */
extern bool clockwork_run_request_take_pause(void);

/* Does a session keep runs from starting? */
extern bool clockwork_run_request_is_held(void);

/* The cancellation with that ticket; false if it has not come yet. */
extern bool clockwork_run_request_find_cancel(uint64 ticket, CancelRequest *found);

/* The first ticket that is not answered. */
extern uint64 clockwork_run_request_first_cancel(void);

/* Answer the first ticket that is not answered. */
extern void clockwork_run_request_answer(uint64 ticket, CancelAnswer answer);

/* A run has ended, and its record says so; 0: any number of them. */
extern void clockwork_run_request_note_end(int64 runid);

/* A pass begins, or is over: who waits for that is woken. */
extern void clockwork_run_request_begin_pass(void);
extern void clockwork_run_request_end_pass(void);

#endif							/* CLOCKWORK_RUN_REQUEST_H */
