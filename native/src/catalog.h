/*
 * Changing cron.job, and the state of everything beside it.
 */
#ifndef CLOCKWORK_CATALOG_H
#define CLOCKWORK_CATALOG_H

#include "extension.h"
#include "job.h"

/* The id of a role's job of that name; 0 if there is none. */
extern int64 clockwork_catalog_find_named(const ExtensionObjects *objects,
										  const char *name, Oid owner);

/*
 * The ids of all roles' jobs of that name, at most `most` of them: how many
 * there are.
 */
extern int	clockwork_catalog_list_named(const ExtensionObjects *objects, const char *name,
										 int64 *jobids, int most);

/*
 * Insert a job; or, if its role has one of that name, give that one the new
 * schedule, command and database and nothing else, and let it run here if it
 * was held.  Returns the jobid.
 * Only these fields of the definition are used: name, schedule, command,
 * database, username, active.
 */
extern int64 clockwork_catalog_put_job(const ExtensionObjects *objects,
									   const JobDefinition *job, const char *nodename);

/*
 * Apply a change, which must not be empty, to a job; or delete it.  False if
 * it is no longer there, or no longer that role's: what the caller checked has
 * changed meanwhile.
 */
extern bool clockwork_catalog_change_job(const ExtensionObjects *objects,
										 const JobDefinition *job, const JobChange *change);
extern bool clockwork_catalog_delete_job(const ExtensionObjects *objects, int64 jobid,
										 Oid owner);

/*
 * Take over jobs that are held, all of them or (`jobid` not 0) one: they
 * belong to this installation from now on.  Without `any` only those whose
 * owner's privileges `adopter` has; with it also those whose role was dropped
 * and created again, which pass to the role that has the name now.  Returns
 * how many were taken over.
 */
extern int64 clockwork_catalog_adopt(const ExtensionObjects *objects, int64 jobid,
									 bool any, Oid adopter);

/*
 * The job's role was renamed: let its row say so.  False if the name belongs
 * to another role by now: the caller must then undo it.  Called inside an
 * extension section of the caller's.
 */
extern bool clockwork_catalog_rename_owner(int64 jobid, Oid owner, const char *username);

/*
 * A job with an @at schedule has had its run: make it inactive.  Called
 * inside an extension section of the caller's.
 */
extern void clockwork_catalog_deactivate_job(int64 jobid);

/*
 * Pause a job, unless it is paused already.  Called inside an extension
 * section of the caller's.
 */
extern void clockwork_catalog_pause_job(int64 jobid, const char *reason);

/* Whether everything is paused: the row of cron.pause_state. */
typedef struct PauseState
{
	const char *reason;			/* NULL: it is not */
	TimestampTz changed_at;		/* when that was said; 0: never */
} PauseState;

extern void clockwork_catalog_read_pause(const ExtensionObjects *objects, PauseState *pause);

/* Pause everything, for a reason; or end that, false if there was nothing to end. */
extern void clockwork_catalog_pause(const ExtensionObjects *objects, const char *reason,
									const char *username);
extern bool clockwork_catalog_resume(const ExtensionObjects *objects, const char *username);

#endif							/* CLOCKWORK_CATALOG_H */
