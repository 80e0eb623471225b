/*
 * The clock: read once per pass, handed down as a value.
 *
 * Calendar schedules follow the wall clock, elapsed time the monotonic one.
 * A reading holds both, taken together, so that a stepped wall clock shows as
 * a difference between two readings.
 */
#ifndef CLOCKWORK_CLOCK_H
#define CLOCKWORK_CLOCK_H

#include "datatype/timestamp.h"

typedef struct ClockReading
{
	TimestampTz wall;			/* what the server calls now, microseconds */
	int64		monotonic;		/* microseconds since some fixed moment */
} ClockReading;

extern ClockReading clockwork_clock_read(void);

/*
 * How far the wall clock was set between two readings, in microseconds:
 * positive forward, negative back, 0 if by less than a second (that is
 * slewing and scheduling noise).
 */
extern int64 clockwork_clock_step(const ClockReading *before, const ClockReading *after);

#endif							/* CLOCKWORK_CLOCK_H */
