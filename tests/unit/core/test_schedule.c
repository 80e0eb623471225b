/*
 * Tests of the schedule core in plain C.
 *
 * Usage: test_schedule <vectors directory> <zones file>.  The zones file has
 * lines "name<TAB>second<TAB>offset": from that second on, that offset; the
 * wrapper tests/unit/test_cron_core.py makes it from zoneinfo.  Every text is
 * parsed from a heap copy of its exact size, so that a sanitizer sees a read
 * beyond its end.  Prints what failed, and fails if anything did.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule.h"

#define LINE_MAX_BYTES 65536
#define COLUMNS_MAX 10
#define CHANGES_MAX 4000
#define ZONES_MAX 64
#define TEXT_SIZE 4096

#define US 1000000LL
#define DAY 86400LL

typedef struct Column
{
	char	   *bytes;
	size_t		length;
} Column;

typedef struct Zone
{
	char		name[64];
	int			count;
	int64_t		at[CHANGES_MAX];
	int32_t		offset[CHANGES_MAX];
} Zone;

static Zone zones[ZONES_MAX];
static int	zone_count = 0;
static int	checks = 0;
static int	failures = 0;
static char where[LINE_MAX_BYTES + 200];

static void
check(bool truth, const char *what, const char *got, const char *expected)
{
	checks++;
	if (truth)
		return;
	failures++;
	printf("FAILED %s\n  %s\n  got      %s\n  expected %s\n", where, what, got, expected);
}

static void
check_text(const char *what, const char *got, const char *expected)
{
	check(strcmp(got, expected) == 0, what, got, expected);
}

/* ---------- zones ---------- */

static int32_t
offset_at(void *arg, int64_t at)
{
	Zone	   *zone = arg;
	int			i = zone->count - 1;

	while (i > 0 && zone->at[i] > at)
		i--;
	return zone->offset[i];
}

static bool
next_change(void *arg, int64_t at, int64_t *change)
{
	Zone	   *zone = arg;
	int			i;

	for (i = 1; i < zone->count; i++)
	{
		if (zone->at[i] > at)
		{
			*change = zone->at[i];
			return true;
		}
	}
	return false;
}

static Zone *
find_zone(const char *name)
{
	int			i;

	for (i = 0; i < zone_count; i++)
		if (strcmp(zones[i].name, name) == 0)
			return &zones[i];
	return NULL;
}

static void
read_zones(const char *path)
{
	FILE	   *file = fopen(path, "r");
	char		name[64];
	long long	at;
	int			offset;

	if (file == NULL)
	{
		perror(path);
		exit(2);
	}
	while (fscanf(file, "%63s %lld %d", name, &at, &offset) == 3)
	{
		Zone	   *zone = find_zone(name);

		if (zone == NULL)
		{
			zone = &zones[zone_count++];
			strcpy(zone->name, name);
		}
		zone->at[zone->count] = at;
		zone->offset[zone->count++] = offset;
	}
	fclose(file);
}

/* ---------- tables ---------- */

static int
hex_digit(char c)
{
	return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* One column of a COPY text file, unescaped in place. */
static Column
unescape(char *text)
{
	Column		column;
	char	   *in = text;
	char	   *out = text;

	while (*in != '\0')
	{
		if (*in != '\\')
			*out++ = *in++;
		else if (in[1] == 'x')
		{
			*out++ = (char) (hex_digit(in[2]) * 16 + hex_digit(in[3]));
			in += 4;
		}
		else
		{
			*out++ = in[1] == 't' ? '\t' : in[1] == 'n' ? '\n' : in[1] == 'r' ? '\r' : in[1];
			in += 2;
		}
	}
	*out = '\0';
	column.bytes = text;
	column.length = (size_t) (out - text);
	return column;
}

static int
for_each_row(const char *directory, const char *name, int columns,
			 void (*test) (const Column *row))
{
	static char line[LINE_MAX_BYTES];
	char		path[4096];
	FILE	   *file;
	int			rows = 0;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "rb");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL)
	{
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof(line), file) != NULL)
	{
		Column		row[COLUMNS_MAX];
		char	   *rest = line;
		int			i;

		line[strcspn(line, "\n")] = '\0';
		snprintf(where, sizeof(where), "%s: %s", name, line);
		for (i = 0; i < columns; i++)
		{
			char	   *tab = strchr(rest, '\t');

			if (tab != NULL)
				*tab = '\0';
			row[i] = unescape(rest);
			if (tab == NULL)
				break;
			rest = tab + 1;
		}
		check(i == columns - 1, "the number of columns", "other", "as in the first line");
		if (i == columns - 1)
			test(row);
		rows++;
	}
	fclose(file);
	printf("%s: %d rows\n", name, rows);
	return rows;
}

/* Parse from a heap copy that ends where the text ends. */
static bool
parse_exact(const char *text, size_t length, const char *key, size_t key_length,
			Schedule *schedule, ScheduleReport *report)
{
	char	   *copy = malloc(length > 0 ? length : 1);
	bool		accepted;

	memcpy(copy, text, length);
	memset(schedule, 0xa5, sizeof(*schedule));
	memset(report, 0xa5, sizeof(*report));
	accepted = clockwork_schedule_parse(copy, length, key, key_length, schedule, report);
	free(copy);
	return accepted;
}

/* What must hold of anything the parser returns. */
static void
check_report(bool accepted, const ScheduleReport *report)
{
	const char *texts[] = {report->detail, report->hint, report->notice,
	report->notice_detail, report->notice_hint};
	size_t		i;

	for (i = 0; i < 5; i++)
	{
		size_t		limit = i == 2 ? sizeof(report->notice) : sizeof(report->detail);
		const char *end = memchr(texts[i], '\0', limit);
		const char *c;

		check(end != NULL, "a text of the report ends", "no NUL", "NUL");
		for (c = texts[i]; end != NULL && c < end; c++)
			check(*c >= 0x20 && *c < 0x7f, "a text of the report is printable", texts[i], "ASCII");
	}
	check((report->detail[0] == '\0') == accepted, "a refusal has a detail", report->detail, "");
	if (accepted)
		check_text("an accepted text has no hint", report->hint, "");
	else
		check_text("a refused text has no notice", report->notice, "");
}

/* The normalised text gives the same schedule, however small the buffer was. */
static void
check_round_trip(const Schedule *schedule, const char *source, size_t source_length)
{
	char		text[TEXT_SIZE];
	char		again[TEXT_SIZE];
	char		small[TEXT_SIZE];
	size_t		length = clockwork_schedule_format(schedule, source, source_length, text, sizeof(text));
	size_t		size;
	Schedule	parsed;
	ScheduleReport report;

	check(length == strlen(text), "format returns the length", text, "");
	check(parse_exact(text, length, "other", 5, &parsed, &report), "the normalised text is accepted",
		  text, report.detail);
	check(memcmp(&parsed, schedule, sizeof(parsed)) == 0, "the normalised text means the same", text, "");
	clockwork_schedule_format(&parsed, text, length, again, sizeof(again));
	check_text("the normalised text is its own", again, text);

	for (size = 0; size <= length + 1; size += 1 + size / 8)
	{
		memset(small, 'x', sizeof(small));
		check(clockwork_schedule_format(schedule, source, source_length, small, size) == length,
			  "format counts what it cuts", text, "");
		check(size == 0 || (strncmp(small, text, size - 1) == 0 && strlen(small) == (size <= length ? size - 1 : length)),
			  "format cuts", small, text);
		check(small[size] == 'x', "format stays in its buffer", small, text);
	}
	length = clockwork_schedule_describe(schedule, source, source_length, text, sizeof(text));
	check(length == strlen(text) && length > 0, "describe returns the length", text, "");
	for (size = 0; size <= length + 1; size += 1 + size / 8)
	{
		memset(small, 'x', sizeof(small));
		check(clockwork_schedule_describe(schedule, source, source_length, small, size) == length && small[size] == 'x',
			  "describe stays in its buffer", small, text);
	}
}

/* ---------- the tables of tests/vectors ---------- */

static void
test_refusal(const Column *row)
{
	Schedule	schedule;
	ScheduleReport report;
	bool		accepted = parse_exact(row[1].bytes, row[1].length, NULL, 0, &schedule, &report);

	check(!accepted, "refused", "accepted", "refused");
	check_report(accepted, &report);
	check_text("detail", report.detail, row[2].bytes);
	check_text("hint", report.hint, row[3].bytes);
}

static void
test_acceptance(const Column *row)
{
	Schedule	schedule;
	ScheduleReport report;
	char		text[TEXT_SIZE];
	bool		accepted = parse_exact(row[1].bytes, row[1].length, row[2].bytes, row[2].length,
									   &schedule, &report);

	check(accepted, "accepted", report.detail, "");
	if (!accepted)
		return;
	check_report(accepted, &report);
	clockwork_schedule_format(&schedule, row[1].bytes, row[1].length, text, sizeof(text));
	check_text("normalised", text, row[3].bytes);
	clockwork_schedule_describe(&schedule, row[1].bytes, row[1].length, text, sizeof(text));
	check_text("words", text, row[4].bytes);
	check_text("notice", report.notice, row[5].bytes);
	check_text("notice detail", report.notice_detail, row[6].bytes);
	check_text("notice hint", report.notice_hint, row[7].bytes);
	text[0] = '\0';
	check(clockwork_schedule_never_runs(&schedule, text, sizeof(text)) == (row[8].length > 0),
		  "never runs", text, row[8].bytes);
	check_text("why never", text, row[8].bytes);
	check_round_trip(&schedule, row[1].bytes, row[1].length);
}

/* "2030-03-10T07:00:00.5Z" in microseconds; "never". */
static int64_t
read_instant(const char *text)
{
	static const int before_month[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	int			year,
				month,
				day,
				hour,
				minute,
				second;
	int			consumed = 0;
	int64_t		days;
	int64_t		fraction = 0;
	int64_t		unit = US;

	if (strcmp(text, "never") == 0)
		return SCHEDULE_NEVER;
	if (sscanf(text, "%d-%d-%dT%d:%d:%d%n", &year, &month, &day, &hour, &minute, &second, &consumed) != 6)
	{
		check(false, "an instant", text, "2030-01-01T00:00:00Z");
		return 0;
	}
	if (text[consumed] == '.')
		for (consumed++; text[consumed] >= '0' && text[consumed] <= '9'; consumed++)
			fraction += (text[consumed] - '0') * (unit /= 10);
	/* 2100 is the one year divisible by four without a leap day. */
	days = (int64_t) (year - 1970) * 365 + (year - 1969) / 4 - (year > 2100);
	days += before_month[month - 1] + day - 1;
	if (month > 2 && year % 4 == 0 && year != 2100)
		days++;
	return ((days * 24 + hour) * 60 + minute) * 60 * US + second * US + fraction;
}

/* No half minute of the first hours between two due times is a member. */
static void
check_between(const Schedule *schedule, const ScheduleZone *zone, bool match,
			  int64_t anchor, int64_t after, int64_t until)
{
	int64_t		at = after / (30 * US) * (30 * US);
	int			i;

	for (i = 0; i < 720; i++)
	{
		at += 30 * US;
		if (at <= after)
			continue;
		if (at >= until)
			break;
		if (clockwork_schedule_matches(schedule, zone, match, anchor, at))
		{
			char		shown[32];

			snprintf(shown, sizeof(shown), "%lld", (long long) at);
			check(false, "nothing lies between", shown, "");
			return;
		}
	}
	checks++;
}

static void
test_next_run(const Column *row)
{
	Schedule	schedule;
	ScheduleReport report;
	Zone	   *zone = find_zone(row[2].bytes);
	ScheduleZone callbacks = {zone, offset_at, next_change};
	bool		match = row[3].bytes[0] == 't';
	int64_t		anchor = row[4].length > 0 ? read_instant(row[4].bytes) : 0;
	int64_t		after = read_instant(row[5].bytes);
	char	   *due = strtok(row[6].bytes, " ");

	check(zone != NULL, "the zone is known", row[2].bytes, "");
	if (zone == NULL || !parse_exact(row[1].bytes, row[1].length, NULL, 0, &schedule, &report))
	{
		check(false, "accepted", report.detail, "");
		return;
	}
	for (; due != NULL; due = strtok(NULL, " "))
	{
		int64_t		expected = read_instant(due);
		int64_t		got = clockwork_schedule_next(&schedule, &callbacks, match, anchor, after);
		char		shown[32];

		snprintf(shown, sizeof(shown), "%lld", (long long) got);
		check(got == expected, "next", shown, due);
		check_between(&schedule, &callbacks, match, anchor, after, got);
		if (got == SCHEDULE_NEVER)
			break;
		check(clockwork_schedule_matches(&schedule, &callbacks, match, anchor, got), "next is a member", shown, due);
		check(clockwork_schedule_next(&schedule, &callbacks, match, anchor, got - 1) == got,
			  "next from a microsecond before", shown, due);
		if (strcmp(zone->name, "UTC") == 0)
			check(clockwork_schedule_next(&schedule, NULL, match, anchor, after) == got,
				  "no zone is UTC", shown, due);
		after = got;
	}
}

/* ---------- properties ---------- */

static uint64_t seed = 20260101;

static uint32_t
draw(uint32_t limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t) ((seed >> 20) % limit);
}

static const char *
draw_from(const char *const *choices, int count)
{
	return choices[draw((uint32_t) count)];
}

#define DRAW(choices) draw_from(choices, (int) (sizeof(choices) / sizeof((choices)[0])))

static void
draw_pattern(char *text, size_t size)
{
	static const char *const minutes[] = {"*", "*/5", "*/15", "0", "30", "0,30", "59", "7-59/13", "H", "H/20", "*/7,3", "1-2"};
	static const char *const hours[] = {"*", "*/2", "0", "1", "2", "3", "23", "0-23", "1-3", "22-23,0", "*/5", "H", "2,14", "H/6"};
	static const char *const days[] = {"*", "?", "1", "13", "31", "*/2", "1-7", "L", "L-3", "15W", "1W", "LW", "L-1W", "31W", "5,*/9", "$", "1,L", "L-30"};
	static const char *const months[] = {"*", "*", "*", "1", "2", "3", "10,11", "*/3", "MAR", "FEB"};
	static const char *const weekdays[] = {"*", "*", "?", "1-5", "SUN", "MON#1", "5L", "+FRI", "*/2", "+MON#2,FRI", "7", "SAT-SUN", "0-7", "TUE#5", "+*"};
	static const char *const seconds[] = {"0", "*", "*/30", "15", "59", "H"};
	static const char *const years[] = {"*", "2024-2030", "*/2", "2026", "2025,2027"};
	int			fields = 5 + (int) draw(3);

	snprintf(text, size, "%s%s%s %s %s %s %s%s%s",
			 fields > 5 ? DRAW(seconds) : "", fields > 5 ? " " : "",
			 DRAW(minutes), DRAW(hours), DRAW(days), DRAW(months), DRAW(weekdays),
			 fields > 6 ? " " : "", fields > 6 ? DRAW(years) : "");
}

/*
 * next > after; next is a member; nothing between is, as far as was looked:
 * some minutes by the second, and some hours by the half minute.
 */
static void
test_properties(int rounds)
{
	int			round;

	for (round = 0; round < rounds; round++)
	{
		Zone	   *zone = &zones[draw((uint32_t) zone_count)];
		ScheduleZone callbacks = {zone, offset_at, next_change};
		Schedule	schedule;
		ScheduleReport report;
		char		text[200];
		char		shown[64];
		bool		match = draw(4) == 0;
		int64_t		after;
		int64_t		next;
		int64_t		at;

		draw_pattern(text, sizeof(text));
		/* Half of the time near a change of the clock. */
		if (zone->count > 2 && draw(2) == 0)
			after = zone->at[1 + draw((uint32_t) (zone->count - 1))] + (int64_t) draw(4 * 86400) - 2 * DAY;
		else
			after = 1600000000LL + (int64_t) draw(400000000);
		after = after * US + (draw(2) == 0 ? 0 : draw(1000000));

		snprintf(where, sizeof(where), "round %d: \"%s\" in %s after %lld", round, text, zone->name, (long long) after);
		if (!parse_exact(text, strlen(text), text, strlen(text), &schedule, &report))
		{
			check(false, "accepted", report.detail, "");
			continue;
		}
		check_round_trip(&schedule, text, strlen(text));
		next = clockwork_schedule_next(&schedule, &callbacks, match, 0, after);
		snprintf(shown, sizeof(shown), "%lld", (long long) next);
		check(next > after, "next is later", shown, "");
		if (next != SCHEDULE_NEVER)
			check(clockwork_schedule_matches(&schedule, &callbacks, match, 0, next), "next is a member", shown, "");

		for (at = after / US + 1; at < after / US + 400 && at * US < next; at++)
		{
			if (!clockwork_schedule_matches(&schedule, &callbacks, match, 0, at * US))
				continue;
			snprintf(shown, sizeof(shown), "%lld", (long long) at);
			check(false, "nothing lies between", shown, "");
			break;
		}
		check_between(&schedule, &callbacks, match, 0, after, next);
		checks++;
	}
}

static void
test_random_bytes(int rounds)
{
	static const char alphabet[] = "0123456789*/-,?LWH#+$~()@ \t\n.:abcMONFRIjanTZPevryseconds\0\xff\xc2\xa0\xe2\x80\x93";
	int			round;

	for (round = 0; round < rounds; round++)
	{
		char		text[64];
		size_t		length = draw(40);
		size_t		i;
		Schedule	schedule;
		ScheduleReport report;
		bool		accepted;

		for (i = 0; i < length; i++)
			text[i] = alphabet[draw(sizeof(alphabet) - 1)];
		snprintf(where, sizeof(where), "random bytes, round %d", round);
		accepted = parse_exact(text, length, text, length, &schedule, &report);
		check_report(accepted, &report);
		if (accepted)
			check_round_trip(&schedule, text, length);
	}
}

/* "@after" and pieces of what may follow it, in any order. */
static void
test_random_parents(int rounds)
{
	static const char *const pieces[] = {
		"\"a\"", "\"b\"", "\"\"\"\"", "\"", ",", ", ", " ", "\t", " failed", " finished",
		"succeeded", "x", "\xc3\xa4", "\xff", "\n"
	};
	int			round;
	int			taken = 0;

	for (round = 0; round < rounds; round++)
	{
		char		text[200] = "@after ";
		uint32_t	left = 1 + draw(7);
		Schedule	schedule;
		ScheduleReport report;
		bool		accepted;

		while (left-- > 0)
			strcat(text, pieces[draw(sizeof(pieces) / sizeof(pieces[0]))]);
		snprintf(where, sizeof(where), "random parents, round %d", round);
		accepted = parse_exact(text, strlen(text), NULL, 0, &schedule, &report);
		check_report(accepted, &report);
		if (!accepted)
			continue;
		taken++;
		check(schedule.kind == SCHEDULE_AFTER, "it is an event", text, "");
		check_round_trip(&schedule, text, strlen(text));
	}
	check(taken > rounds / 100, "some are accepted", "", "");
}

/* Every beginning of every accepted text. */
static void
test_beginnings(const Column *row)
{
	size_t		length;

	for (length = 0; length < row[1].length && length < 200; length++)
	{
		Schedule	schedule;
		ScheduleReport report;
		bool		accepted = parse_exact(row[1].bytes, length, NULL, 0, &schedule, &report);

		check_report(accepted, &report);
		if (accepted)
			check_round_trip(&schedule, row[1].bytes, length);
	}
}

/* ---------- the edges ---------- */

static int32_t
mad_offset(void *arg, int64_t at)
{
	(void) arg;
	return (int32_t) (at % 7 - 3) * 3600 * 8;
}

static bool
mad_change(void *arg, int64_t at, int64_t *change)
{
	*change = at + *(int *) arg;
	return true;
}

static void
test_edges(void)
{
	static const int64_t extremes[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
	static const char *const texts[] = {"* * * * * *", "* * * * *", "0 0 1 1 *", "30 seconds", "@every 36525 days",
	"@at 2030-05-01 10:00", "@at 2199-12-31 23:59:59.999999", "@at 1970-01-01Z", "@reboot"};
	size_t		i,
				j,
				k;
	int			pace;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		Schedule	schedule;
		ScheduleReport report;

		snprintf(where, sizeof(where), "edges: %s", texts[i]);
		check(clockwork_schedule_parse(texts[i], strlen(texts[i]), NULL, 0, &schedule, &report), "accepted", report.detail, "");
		for (j = 0; j < 7; j++)
		{
			for (k = 0; k < 7; k++)
			{
				int64_t		next = clockwork_schedule_next(&schedule, NULL, false, extremes[k], extremes[j]);

				check(next > extremes[j] || extremes[j] == INT64_MAX, "next is later", "", "");
				if (next != SCHEDULE_NEVER)
					check(clockwork_schedule_matches(&schedule, NULL, false, extremes[k], next), "next is a member", "", "");
				(void) clockwork_schedule_matches(&schedule, NULL, false, extremes[k], extremes[j]);
			}
			(void) clockwork_schedule_never_runs_after(&schedule, true, extremes[j], where, 0);
		}

		/* A zone that never stops changing, or claims changes in the past. */
		for (pace = -1; pace < 2000000; pace = pace <= 0 ? pace + 1 : pace * 50 + 1)
		{
			ScheduleZone mad = {&pace, mad_offset, mad_change};

			if (pace > 0 && pace < 1000000)
				continue;
			(void) clockwork_schedule_next(&schedule, &mad, false, 0, 1900000000 * US);
			(void) clockwork_schedule_next(&schedule, &mad, true, 0, INT64_MIN);
			(void) clockwork_schedule_matches(&schedule, &mad, true, 0, 1900000000 * US);
		}
	}
	check(sizeof(Schedule) <= 200, "a schedule is small", "", "");
}

int
main(int argc, char **argv)
{
	if (argc != 3)
	{
		fprintf(stderr, "usage: %s <vectors directory> <zones file>\n", argv[0]);
		return 2;
	}
	read_zones(argv[2]);
	for_each_row(argv[1], "refusals.tsv", 4, test_refusal);
	for_each_row(argv[1], "refusals_bytes.tsv", 4, test_refusal);
	for_each_row(argv[1], "acceptances.tsv", 9, test_acceptance);
	for_each_row(argv[1], "acceptances.tsv", 9, test_beginnings);
	for_each_row(argv[1], "next_runs.tsv", 7, test_next_run);
	test_properties(4000);
	test_random_bytes(100000);
	test_random_parents(20000);
	test_edges();
	printf("%d checks, %d failures\n", checks, failures);
	return failures > 0;
}
