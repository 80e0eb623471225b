/*
 * Moving records from the backlog to the history.
 */
#ifndef CLOCKWORK_BACKLOG_H
#define CLOCKWORK_BACKLOG_H

/*
 * Move a part of cron.record_backlog to cron.job_run_details, if there is any
 * and the history is not known to be locked.  What is refused stays and is
 * tried again later.  May raise errors; needs no transaction.
 */
extern void clockwork_backlog_catch_up(void);

#endif							/* CLOCKWORK_BACKLOG_H */
