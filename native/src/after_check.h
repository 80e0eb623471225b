/*
 * Refusing @after schedules that could never come true, as SQL errors.
 */
#ifndef CLOCKWORK_AFTER_CHECK_H
#define CLOCKWORK_AFTER_CHECK_H

#include "extension.h"

/* Is this text meant to be an @after schedule, whether it is right or not? */
extern bool clockwork_after_is_meant(const char *schedule);

/*
 * Look at the jobs that a schedule waits for, if it is a correct @after
 * schedule; anything else is passed over.  `name` is the job's own name or
 * NULL, `username` its role.  Raises an error if the job would wait for itself,
 * be it through others.  A name that no job of the role bears is an error, or
 * (`may_come`) a warning: whoever writes to cron.job directly may insert that
 * job later.
 */
extern void clockwork_after_check(const ExtensionObjects *objects, const char *schedule,
								  const char *name, const char *username, bool may_come);

#endif							/* CLOCKWORK_AFTER_CHECK_H */
