/*
 * Reading the rows of cron.job.
 */
#ifndef CLOCKWORK_JOB_ROWS_H
#define CLOCKWORK_JOB_ROWS_H

#include "extension.h"
#include "job.h"

typedef void (*JobVisitor) (const JobDefinition *job, void *arg);

/*
 * Visit the jobs with the given ids, or all jobs if `count` < 0, in a
 * transaction of the caller's.  Ids without a row are passed over, and one that
 * is given twice is visited once.  What the visitor is shown lives until it
 * returns.  Nobody is there to visit if the table is gone by now.  Neither
 * privileges nor row security apply: the caller checks.
 */
extern void clockwork_job_rows_visit(const ExtensionObjects *objects,
									 const int64 *jobids, int count,
									 JobVisitor visit, void *arg);

/*
 * The job with that id, allocated in the current memory context; NULL if
 * there is none.
 */
extern JobDefinition *clockwork_job_rows_find(const ExtensionObjects *objects, int64 jobid);

#endif							/* CLOCKWORK_JOB_ROWS_H */
