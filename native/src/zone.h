/*
 * Time zones: the server's, in the shape the schedule core asks for.
 */
#ifndef CLOCKWORK_ZONE_H
#define CLOCKWORK_ZONE_H

#include "core/schedule.h"
#include "datatype/timestamp.h"
#include "pgtime.h"

/*
 * The zone of that name, or NULL if there is none we can use (not known, or
 * one that counts leap seconds).  NULL or an empty name means cron.timezone.
 * The result lives as long as the process.
 */
extern pg_tz *clockwork_zone_find(const char *name);

/* The callbacks over a zone. */
extern ScheduleZone clockwork_zone_callbacks(pg_tz *zone);

/* The server counts from 2000-01-01, the core from 1970-01-01. */
extern ScheduleInstant clockwork_zone_instant(TimestampTz timestamp);
extern TimestampTz clockwork_zone_timestamp(ScheduleInstant instant);

/* The length of an interval in microseconds, within int64: a month has 30 days. */
extern int64 clockwork_interval_usec(const Interval *interval);

#endif							/* CLOCKWORK_ZONE_H */
