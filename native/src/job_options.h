/*
 * The options of a job, as they travel in one jsonb.
 */
#ifndef CLOCKWORK_JOB_OPTIONS_H
#define CLOCKWORK_JOB_OPTIONS_H

#include "job.h"
#include "utils/jsonb.h"

/*
 * Read options into a change, checking keys, types and ranges.
 *
 * With `scheduling`, the keys that cron.schedule takes as arguments of their
 * own (name, schedule, command) are refused.  An option that this version
 * does not support yet is accepted with its default only.
 */
extern void clockwork_job_options_read(Jsonb *options, bool scheduling, JobChange *change);

#endif							/* CLOCKWORK_JOB_OPTIONS_H */
