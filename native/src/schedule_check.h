/*
 * Refusing schedules and time zones that are none, as SQL errors.
 */
#ifndef CLOCKWORK_SCHEDULE_CHECK_H
#define CLOCKWORK_SCHEDULE_CHECK_H

#include "core/schedule.h"
#include "pgtime.h"

/*
 * Parse a schedule, or raise the error that says what is wrong with it.
 * `key` is what "H" is derived from: a job's name, or NULL.  `common_hint` is
 * given where the parser has no advice of its own; NULL for none.
 */
extern void clockwork_schedule_check(const char *text, const char *key, const char *common_hint,
									 Schedule *schedule, ScheduleReport *report);

/*
 * The zone of that name, or an error; NULL means cron.timezone.  An empty
 * name is none.
 */
extern pg_tz *clockwork_timezone_check(const char *name);

#endif							/* CLOCKWORK_SCHEDULE_CHECK_H */
