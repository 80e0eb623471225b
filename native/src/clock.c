/*
 * The clock: wall and monotonic time, read together.
 */
#include "postgres.h"

#include "clock.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

ClockReading
clockwork_clock_read(void)
{
	ClockReading reading;
	instr_time	ticks;

	INSTR_TIME_SET_CURRENT(ticks);
	reading.monotonic = (int64) INSTR_TIME_GET_MICROSEC(ticks);
	reading.wall = GetCurrentTimestamp();
	return reading;
}

int64
clockwork_clock_step(const ClockReading *before, const ClockReading *after)
{
	int64		step = (after->wall - before->wall) -
		(after->monotonic - before->monotonic);

	return step > -USECS_PER_SEC && step < USECS_PER_SEC ? 0 : step;
}
