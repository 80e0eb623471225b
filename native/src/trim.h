/*
 * Removing the records that the history of their job does not keep.
 */
#ifndef CLOCKWORK_TRIM_H
#define CLOCKWORK_TRIM_H

/*
 * Remove what is superfluous in the jobs that say so (clockwork_run_must_trim),
 * a part of it at a time and not more often than once a second.  What the table
 * does not give away is tried again later.  May raise errors; needs no
 * transaction.
 */
extern void clockwork_trim_records(void);

#endif							/* CLOCKWORK_TRIM_H */
