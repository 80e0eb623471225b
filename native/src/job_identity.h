/*
 * Whose the launcher's jobs are: following renamed roles, and counting the
 * jobs that are held because they belong to another installation.
 */
#ifndef CLOCKWORK_JOB_IDENTITY_H
#define CLOCKWORK_JOB_IDENTITY_H

/* Learn of changes to roles from now on; call when the process starts. */
extern void clockwork_job_identity_init(void);

/*
 * After a sync: bring the username of jobs whose role was renamed up to date,
 * and say in the log how many jobs are held when that has changed.  Costs
 * nothing when no role has changed.  An error of one job is logged and leaves
 * the others alone.
 */
extern void clockwork_job_identity_follow(void);

#endif							/* CLOCKWORK_JOB_IDENTITY_H */
