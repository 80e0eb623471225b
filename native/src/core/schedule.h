/*
 * The schedule language: text in, due times out.
 *
 * Plain C without any server header, so that the server, the Python package,
 * the fuzzer and the unit tests all compile these very files.  The zone is
 * reached through two callbacks: pg_tz in the server, zoneinfo in Python.
 * Nothing here allocates, reads a clock, or keeps state between calls.
 *
 * The language and its rules are described in docs/schedules.md.
 */
#ifndef CLOCKWORK_CORE_SCHEDULE_H
#define CLOCKWORK_CORE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Microseconds since 1970-01-01 00:00:00 UTC; leap seconds are not counted. */
typedef int64_t ScheduleInstant;

/* "No due time": what never comes sorts after all that does. */
#define SCHEDULE_NEVER INT64_MAX

/* Longest schedule text accepted, in bytes. */
#define SCHEDULE_TEXT_MAX 8191

/* Years a calendar schedule can name; the year set holds one bit for each. */
#define SCHEDULE_YEAR_MIN 1970
#define SCHEDULE_YEAR_MAX 2199

/*
 * A time zone as the calendar needs it.  Times are Unix seconds, offsets are
 * seconds east of Greenwich, less than 26 hours either way.  A NULL
 * ScheduleZone means UTC.
 */
typedef struct ScheduleZone
{
	void	   *zone;			/* handed to the callbacks, never looked at */

	/* The offset in force at `at`. */
	int32_t		(*offset_at) (void *zone, int64_t at);

	/*
	 * The first second strictly after `at` at which another offset comes into
	 * force; false if there is none (or none that is known).
	 */
	bool		(*next_change) (void *zone, int64_t at, int64_t *change);
} ScheduleZone;

typedef enum ScheduleKind
{
	SCHEDULE_CALENDAR,			/* cron fields and the nicknames for them */
	SCHEDULE_INTERVAL,			/* "N seconds" and @every: elapsed time */
	SCHEDULE_AT,				/* @at: one instant */
	SCHEDULE_REBOOT,			/* @reboot, @restart: when the server starts */
	SCHEDULE_AFTER				/* @after: when runs of other jobs have ended */
} ScheduleKind;

/* What a run must have done for @after. */
typedef enum ScheduleCondition
{
	SCHEDULE_SUCCEEDED,
	SCHEDULE_FAILED,
	SCHEDULE_FINISHED			/* either */
} ScheduleCondition;

/* The most jobs that one schedule can wait for. */
#define SCHEDULE_PARENTS_MAX 32

/* A job that an @after schedule waits for, as it stands in the text. */
typedef struct ScheduleParent
{
	const char *name;			/* in the text, with quotes inside still doubled */
	size_t		length;			/* in bytes, not 0 */
	ScheduleCondition condition;
} ScheduleParent;

/*
 * A parsed schedule.  Fixed size, no pointers: it may be copied with
 * memcpy, kept in an array of 100,000, and thrown away without a call.
 * Only schedule_parse fills it, padding included, so that two schedules are
 * equal if their bytes are (@after: but for a coincidence of 64-bit hashes).
 * The fields are read by the core alone, except `kind` and `parent_count`,
 * which anybody may look at.  The names of @after are not in it: functions
 * that show them take the text that was parsed.
 */
typedef struct Schedule
{
	ScheduleKind kind;
	uint32_t	flags;			/* how fields were written: see the core */
	uint64_t	second;			/* bits 0-59 */
	uint64_t	minute;			/* bits 0-59 */
	uint64_t	weekday_nth;	/* bit 6 * day + n - 1: day#n; n = 6 is dayL */
	uint32_t	hour;			/* bits 0-23 */
	uint32_t	day;			/* bits 1-31 */
	uint32_t	day_from_last;	/* bit n: L-n */
	uint16_t	month;			/* bits 1-12 */
	uint8_t		weekday;		/* bits 0-6, Sunday is 0 */
	uint8_t		workday;		/* nW: n, or 0 */
	uint8_t		workday_from_last;	/* L-nW: n + 1, or 0 */
	uint32_t	year[8];		/* bit y: 1970 + y */
	uint8_t		parent_count;	/* of @after, 1 to SCHEDULE_PARENTS_MAX */
	int64_t		microseconds;	/* the length of an interval; the time of @at */
	uint64_t	parents;		/* of @after: a hash of names and conditions */
} Schedule;

/*
 * What schedule_parse has to say.  Empty strings where there is nothing.
 * All texts are NUL-terminated UTF-8 made of the message and short pieces of
 * the input, cut if need be; a byte of the input that is not printable ASCII
 * is shown as \xNN, so the texts are valid in every encoding.
 */
typedef struct ScheduleReport
{
	char		detail[320];	/* why the text was refused: facts, a sentence */
	char		hint[320];		/* the corrected text or advice */
	char		notice[160];	/* accepted, but worth saying: primary message */
	char		notice_detail[320];
	char		notice_hint[320];
	int			fields;			/* 5, 6 or 7 for a cron expression, else 0 */
} ScheduleReport;

/*
 * Parse `length` bytes of `text` into *schedule.
 *
 * `hash_key` (may be NULL: the empty key) is what "H" is derived from: the
 * job's name.  Returns false with report->detail (and ->hint when there is
 * advice) if the text is refused; *schedule is then undefined.
 */
extern bool clockwork_schedule_parse(const char *text, size_t length,
									 const char *hash_key, size_t hash_key_length,
									 Schedule *schedule, ScheduleReport *report);

/*
 * The first due time strictly after `after`, or SCHEDULE_NEVER.
 *
 * `anchor` is where the series of an interval begins: due times are
 * anchor + k * interval, k >= 1.  Other kinds ignore it.  `match_dom_and_dow`
 * requires both day fields to match whatever their form
 * (cron.match_dom_and_dow).  SCHEDULE_REBOOT and SCHEDULE_AFTER are never due
 * by the clock.
 */
extern ScheduleInstant clockwork_schedule_next(const Schedule *schedule,
											   const ScheduleZone *zone,
											   bool match_dom_and_dow,
											   ScheduleInstant anchor,
											   ScheduleInstant after);

/*
 * Is `instant` a due time?  Written from the definition and not from the
 * search above, so that each can be tested against the other.
 */
extern bool clockwork_schedule_matches(const Schedule *schedule,
									   const ScheduleZone *zone,
									   bool match_dom_and_dow,
									   ScheduleInstant anchor,
									   ScheduleInstant instant);

/*
 * The parents of an @after schedule, one per call: *position is 0 before the
 * first.  `text` is one that clockwork_schedule_parse accepted as @after.
 * False after the last.
 */
extern bool clockwork_schedule_next_parent(const char *text, size_t length,
										   size_t *position, ScheduleParent *parent);

/*
 * A parent's name as the job bears it, NUL-terminated and cut at `size`.
 * Returns the length it has or would have had.
 */
extern size_t clockwork_schedule_parent_name(const ScheduleParent *parent,
											 char *buffer, size_t size);

/* "succeeded", "failed" or "finished". */
extern const char *clockwork_schedule_condition_word(ScheduleCondition condition);

/*
 * The normalised text of a schedule, NUL-terminated and cut at `size`.
 * Returns the length it has or would have had, like snprintf.  Parsing the
 * result gives the same schedule.  `text` is what it was parsed from; only
 * @after needs it, for the names, whose bytes are given back as they are.
 */
extern size_t clockwork_schedule_format(const Schedule *schedule,
										const char *text, size_t length,
										char *buffer, size_t size);

/*
 * The schedule in English words, without a final period: "At 03:00 every
 * day".  `text` as above; cut and counted likewise.
 */
extern size_t clockwork_schedule_describe(const Schedule *schedule,
										  const char *text, size_t length,
										  char *buffer, size_t size);

/*
 * Can the schedule be proved to have no due time at all?  If so, `why` gets a
 * sentence.  False for what is not a calendar schedule.
 */
extern bool clockwork_schedule_never_runs(const Schedule *schedule,
										  char *why, size_t size);

/* The same from `now` on, and under a given cron.match_dom_and_dow. */
extern bool clockwork_schedule_never_runs_after(const Schedule *schedule,
												bool match_dom_and_dow,
												ScheduleInstant now,
												char *why, size_t size);

/*
 * All of the above for a person, as lines that end in a newline: normalised
 * form, words, the next `count` due times after `from` in the zone (called
 * `zone_name`) and in UTC, and what the clock changes of the year after `from`
 * do to it.  `text` as above; cut and counted likewise; 4 kB plus four times
 * `length` plus 80 bytes for each due time is always enough.
 */
extern size_t clockwork_schedule_explain(const Schedule *schedule,
										 const char *text, size_t length,
										 const ScheduleZone *zone,
										 const char *zone_name,
										 bool match_dom_and_dow,
										 ScheduleInstant anchor,
										 ScheduleInstant from, int count,
										 char *buffer, size_t size);

#endif							/* CLOCKWORK_CORE_SCHEDULE_H */
