/*
 * Everything worth knowing of a schedule, as lines of text: its normalised
 * form, its meaning in words, its next due times in the zone and in UTC, and
 * what the clock changes of the coming year do to it.
 *
 * What a clock change does is not deduced from the rules but asked of
 * clockwork_schedule_matches, so this page cannot say anything that the
 * schedule does not do.
 */
#include "schedule_calendar.h"
#include "schedule_parse.h"
#include "schedule_text.h"

/* Clock changes are looked for this far ahead. */
#define YEAR_AHEAD (366 * SECONDS_PER_DAY)

/* One question: what was asked, and where the answer goes. */
typedef struct Explanation
{
	const Schedule *schedule;
	const char *text;			/* that it was parsed from */
	size_t		length;
	const ScheduleZone *zone;
	const char *zone_name;
	bool		match_dom_and_dow;
	ScheduleInstant anchor;
	ScheduleInstant from;
	TextSink	sink;
} Explanation;

static int32_t
offset_at(const Explanation *ask, int64_t second)
{
	return ask->zone ? ask->zone->offset_at(ask->zone->zone, second) : 0;
}

static int64_t
to_second(ScheduleInstant instant)
{
	return floor_div(instant, US_PER_SECOND);
}

static void
sink_date(TextSink *sink, int64_t local)
{
	int			day;
	CivilMonth	month = month_of_day(floor_div(local, SECONDS_PER_DAY), &day);

	sink_padded(sink, month.year, 4);
	sink_char(sink, '-');
	sink_padded(sink, month.month, 2);
	sink_char(sink, '-');
	sink_padded(sink, day, 2);
}

/* The time of day, with seconds if there are any or if asked for. */
static void
sink_time_of_day(TextSink *sink, int64_t local, bool seconds)
{
	int64_t		second = local - floor_div(local, SECONDS_PER_DAY) * SECONDS_PER_DAY;

	sink_padded(sink, second / 3600, 2);
	sink_char(sink, ':');
	sink_padded(sink, second / 60 % 60, 2);
	if (seconds || second % 60 != 0)
	{
		sink_char(sink, ':');
		sink_padded(sink, second % 60, 2);
	}
}

static void
sink_offset(TextSink *sink, int32_t offset)
{
	int32_t		size = offset < 0 ? -offset : offset;

	sink_char(sink, offset < 0 ? '-' : '+');
	sink_padded(sink, size / 3600, 2);
	sink_char(sink, ':');
	sink_padded(sink, size / 60 % 60, 2);
	if (size % 60 != 0)
	{
		sink_char(sink, ':');
		sink_padded(sink, size % 60, 2);
	}
}

/* ".25" for a quarter of a second, nothing for none. */
static void
sink_fraction(TextSink *sink, ScheduleInstant instant)
{
	int64_t		fraction = instant - to_second(instant) * US_PER_SECOND;

	if (fraction == 0)
		return;
	sink_char(sink, '.');
	sink_padded(sink, fraction, 6);
}

static void
sink_due_time(Explanation *ask, ScheduleInstant due)
{
	int64_t		second = to_second(due);
	int32_t		offset = offset_at(ask, second);

	sink_text(&ask->sink, "  ");
	sink_date(&ask->sink, second + offset);
	sink_char(&ask->sink, ' ');
	sink_time_of_day(&ask->sink, second + offset, true);
	sink_fraction(&ask->sink, due);
	sink_char(&ask->sink, ' ');
	sink_offset(&ask->sink, offset);
	sink_text(&ask->sink, " = ");
	sink_date(&ask->sink, second);
	sink_char(&ask->sink, ' ');
	sink_time_of_day(&ask->sink, second, true);
	sink_fraction(&ask->sink, due);
	sink_text(&ask->sink, " UTC\n");
}

static void
explain_due_times(Explanation *ask, int count)
{
	ScheduleInstant due = clockwork_schedule_next(ask->schedule, ask->zone, ask->match_dom_and_dow,
												  ask->anchor, ask->from);
	bool		never = due == SCHEDULE_NEVER;
	int			shown;

	for (shown = 0; shown < count && due != SCHEDULE_NEVER; shown++)
	{
		if (shown == 0)
		{
			sink_text(&ask->sink, "Next due times in ");
			sink_text(&ask->sink, ask->zone_name);
			sink_text(&ask->sink, ":\n");
		}
		sink_due_time(ask, due);
		due = clockwork_schedule_next(ask->schedule, ask->zone, ask->match_dom_and_dow,
									  ask->anchor, due);
	}
	if (never && ask->schedule->kind == SCHEDULE_REBOOT)
		sink_text(&ask->sink, "Due when the server starts, never by the clock.\n");
	else if (never && ask->schedule->kind == SCHEDULE_AFTER)
		sink_text(&ask->sink, ask->schedule->parent_count == 1 ?
				  "Due when that run has ended, with its due time, never by the clock.\n" :
				  "Due when those runs have ended, with their due time, never by the clock.\n");
	else if (never)
		sink_text(&ask->sink, "Never due again.\n");
}

/* ---- clock changes ---- */

/*
 * The readings of the schedule from `begin` on, before `end`, as if the local
 * clock never changed: how many, the first and the last.
 */
typedef struct Readings
{
	int64_t		count;
	int64_t		first;
	int64_t		last;
} Readings;

static Readings
find_readings(const Explanation *ask, int64_t begin, int64_t end)
{
	Readings	found = {0, 0, 0};
	ScheduleInstant at = begin * US_PER_SECOND - 1;

	/* Bounded: a change lasts a day at most, and due times are whole seconds. */
	for (;;)
	{
		at = clockwork_schedule_next(ask->schedule, NULL, ask->match_dom_and_dow, 0, at);
		if (at == SCHEDULE_NEVER || at >= end * US_PER_SECOND)
			return found;
		found.last = to_second(at);
		if (found.count++ == 0)
			found.first = found.last;
	}
}

static bool
is_due(const Explanation *ask, int64_t second)
{
	return clockwork_schedule_matches(ask->schedule, ask->zone, ask->match_dom_and_dow,
									  ask->anchor, second * US_PER_SECOND);
}

/* "On 2027-03-28 clocks go forward from 02:00 to 03:00: the run at 02:30 " */
static void
sink_change(Explanation *ask, const char *direction, int64_t from, int64_t to,
			const Readings *readings)
{
	TextSink   *sink = &ask->sink;

	sink_text(sink, "On ");
	sink_date(sink, from);
	sink_text(sink, " clocks go ");
	sink_text(sink, direction);
	sink_text(sink, " from ");
	sink_time_of_day(sink, from, false);
	sink_text(sink, " to ");
	if (floor_div(to, SECONDS_PER_DAY) != floor_div(from, SECONDS_PER_DAY))
	{
		sink_date(sink, to);
		sink_char(sink, ' ');
	}
	sink_time_of_day(sink, to, false);
	if (readings->count == 1)
	{
		sink_text(sink, ": the run at ");
		sink_time_of_day(sink, readings->first, false);
		return;
	}
	sink_text(sink, ": the ");
	sink_number(sink, readings->count);
	sink_text(sink, " runs from ");
	sink_time_of_day(sink, readings->first, false);
	sink_text(sink, " to ");
	sink_time_of_day(sink, readings->last, false);
}

/* Readings that the clock leaves out: made up for when it has changed, or not. */
static bool
explain_gap(Explanation *ask, int64_t change, int32_t before, int32_t after)
{
	Readings	lost = find_readings(ask, change + before, change + after);
	bool		one = lost.count == 1;

	if (lost.count == 0)
		return false;
	sink_change(ask, "forward", change + before, change + after, &lost);
	/* For a wildcard schedule the end of the gap can only be due by itself. */
	if ((ask->schedule->flags & FLAGS_WILDCARD) == 0 && is_due(ask, change))
	{
		sink_text(&ask->sink, one ? " happens at " : " become one, at ");
		sink_time_of_day(&ask->sink, change + after, false);
		sink_text(&ask->sink, ".\n");
	}
	else
		sink_text(&ask->sink, one ? " does not happen.\n" : " do not happen.\n");
	return true;
}

/* Readings that the clock shows twice: due both times, or the first only. */
static bool
explain_overlap(Explanation *ask, int64_t change, int32_t before, int32_t after)
{
	Readings	twice = find_readings(ask, change + after, change + before);
	bool		one = twice.count == 1;

	if (twice.count == 0)
		return false;
	sink_change(ask, "back", change + before, change + after, &twice);
	if (is_due(ask, twice.first - after))
		sink_text(&ask->sink, one ? " happens twice.\n" : " happen twice each.\n");
	else
		sink_text(&ask->sink, one ? " happens once, the first time.\n" :
				  " happen once each, the first time.\n");
	return true;
}

static void
explain_clock_changes(Explanation *ask)
{
	int64_t		second = to_second(ask->from);
	int64_t		end = second + YEAR_AHEAD;
	bool		any_change = false;
	bool		any_effect = false;

	if (ask->schedule->kind != SCHEDULE_CALENDAR || ask->zone == NULL)
		return;
	while (ask->zone->next_change(ask->zone->zone, second, &second) && second < end)
	{
		int32_t		before = offset_at(ask, second - 1);
		int32_t		after = offset_at(ask, second);

		any_change |= after != before;
		if (after > before)
			any_effect |= explain_gap(ask, second, before, after);
		else if (after < before)
			any_effect |= explain_overlap(ask, second, before, after);
	}
	if (any_change && !any_effect)
		sink_text(&ask->sink, "The clock changes of the coming year make no difference.\n");
}

/* ---- all of it ---- */

/* A text of another function, straight into what is left of the buffer. */
static void
sink_written(Explanation *ask, size_t (*write) (const Schedule *schedule,
												const char *text, size_t length,
												char *buffer, size_t size))
{
	TextSink   *sink = &ask->sink;
	bool		fits = sink->length < sink->size;

	sink->length += write(ask->schedule, ask->text, ask->length,
						  fits ? sink->buffer + sink->length : NULL,
						  fits ? sink->size - sink->length : 0);
}

/* Is there an "H" that is no letter of a name, such as THU? */
static bool
has_hash(const char *text, size_t length)
{
	size_t		i;

	for (i = 0; i < length; i++)
		if (text[i] == 'H' && (i == 0 || !is_letter(text[i - 1])))
			return true;
	return false;
}

static void
explain_form(Explanation *ask)
{
	sink_text(&ask->sink, "Schedule: ");
	sink_written(ask, clockwork_schedule_format);
	sink_text(&ask->sink, "\nMeaning: ");
	sink_written(ask, clockwork_schedule_describe);
	sink_text(&ask->sink, ".\n");
	if (ask->schedule->kind == SCHEDULE_CALENDAR && has_hash(ask->text, ask->length))
		sink_text(&ask->sink, "What stands for H depends on the job's name.\n");
}

size_t
clockwork_schedule_explain(const Schedule *schedule, const char *text, size_t length,
						   const ScheduleZone *zone, const char *zone_name,
						   bool match_dom_and_dow,
						   ScheduleInstant anchor, ScheduleInstant from, int count,
						   char *buffer, size_t size)
{
	Explanation ask;
	char		why[256];

	ask.schedule = schedule;
	ask.text = text;
	ask.length = length;
	ask.zone = zone;
	ask.zone_name = zone_name;
	ask.match_dom_and_dow = match_dom_and_dow;
	ask.anchor = anchor;
	ask.from = from;
	ask.sink = sink_open(buffer, size);

	explain_form(&ask);
	if (clockwork_schedule_never_runs_after(schedule, match_dom_and_dow, from,
											why, sizeof(why)))
	{
		sink_text(&ask.sink, "Never runs: ");
		sink_text(&ask.sink, why);
		sink_char(&ask.sink, '\n');
	}
	else
	{
		explain_due_times(&ask, count);
		explain_clock_changes(&ask);
	}
	return ask.sink.length;
}
