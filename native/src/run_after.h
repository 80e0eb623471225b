/*
 * Runs that follow from runs of other jobs (@after).
 *
 * A child names its parents, jobs of the same role; names become jobs here, and
 * stay in step with cron.job.  As soon as a parent's run begins, its children
 * get a run for the same due time, in RUN_AWAITING, with a record that says
 * so: whatever crashes after that, the record is there and is decided once the
 * parents' records are final.  The rules are in core/after.h.
 *
 * Known are the outcomes that pass by (clockwork_run_note_outcome), and what
 * the table says of a due time.  A parent that has neither, no run under way
 * and no such due time to come, is missing, so nothing waits for ever.
 */
#ifndef CLOCKWORK_RUN_AFTER_H
#define CLOCKWORK_RUN_AFTER_H

#include "run_list.h"

/* Prepare; call once. */
extern void clockwork_after_init(void);

/* A job was read from its row, or is about to be forgotten. */
extern void clockwork_after_put_job(Job *job);
extern void clockwork_after_drop_job(Job *job);

/*
 * All that changed has been put and dropped: find the jobs that names stand
 * for.  A child whose parents cannot be found, or wait for it in turn, has a
 * problem.
 */
extern void clockwork_after_link(void);

/* A run of a job begins: its children have one for the same due time. */
extern void clockwork_after_announce(const Run *run);

/*
 * Take up the record of a run that awaited its parents.  False if its job has
 * no parents any more, or has a problem.
 */
extern bool clockwork_after_take_up(const OpenRecord *record);

/*
 * Decide what can be decided: hand runs whose time has come to `admit`, which
 * owns them from then on, and skip those that will not come.  Reads the table
 * where it must, in a transaction of its own; raises errors, and can then be
 * called again.
 */
extern void clockwork_after_settle(void (*admit) (Run *run));

/* Records were closed without a note of it: whatever waits is decided anew. */
extern void clockwork_after_look_again(void);

/* Is there anything to settle now? */
extern bool clockwork_after_is_due(void);

/*
 * The earliest due time for which a run of another job still awaits this one;
 * DT_NOEND if there is none.
 */
extern TimestampTz clockwork_after_earliest_awaited(const Job *job);

/* What the record of an awaiting run says; in the current memory context. */
extern char *clockwork_after_describe(const Run *run);

#endif							/* CLOCKWORK_RUN_AFTER_H */
