/*
 * A fuzz target for the schedule core.
 *
 * The first bytes of an input choose the zone, the instant to start from and
 * cron.match_dom_and_dow; the rest is the text, its own hash key.  Whatever
 * the text, the reports must be clean; whatever is accepted must survive the
 * round trip, and its due times must rise and be members.  A broken promise is
 * an abort.
 *
 * tests/fuzz/lane builds it with clang and libFuzzer, and runs it for a while.
 *
 * With any other compiler, -DREPLAY gives a program that runs the inputs named
 * on its command line once each; tests/fuzz/test_fuzz_corpus.py does that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule.h"

/* Zone, match_dom_and_dow, four bytes of time. */
#define HEADER_BYTES 6

#define US INT64_C(1000000)

#define PROMISE(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "broken promise: %s\n", #condition); \
			abort(); \
		} \
	} while (0)

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * A zone made of a rule: `shift` more for the second half of each period,
 * every so many days.  Rules differ in size and sign of the shift.
 */
typedef struct Rule
{
	int32_t		offset;
	int32_t		shift;
	int64_t		half_period;
} Rule;

static const Rule rules[] = {
	{0, 0, 1},
	{-18000, 3600, INT64_C(15778800)},
	{37800, 1800, INT64_C(15778800)},
	{0, 7200, INT64_C(86400) * 30},
	{39600, 10800, INT64_C(86400) * 40 + 60},
	{-39600, 86400, INT64_C(86400) * 300},
	{-2670, 2670, INT64_C(86400) * 7},
	{50400, -3599, INT64_C(86400) * 5 + 1}
};

static int32_t
offset_at(void *arg, int64_t at)
{
	const Rule *rule = arg;
	int64_t		half = at / rule->half_period - (at % rule->half_period < 0);

	return rule->offset + ((half & 1) != 0 ? rule->shift : 0);
}

static bool
next_change(void *arg, int64_t at, int64_t *change)
{
	const Rule *rule = arg;

	if (rule->shift == 0)
		return false;
	*change = (at / rule->half_period - (at % rule->half_period < 0) + 1) * rule->half_period;
	return true;
}

static void
check_clean(const char *text, size_t size)
{
	size_t		length = strnlen(text, size);
	size_t		i;

	PROMISE(length < size);
	for (i = 0; i < length; i++)
		PROMISE(text[i] >= 0x20 && text[i] < 0x7f);
}

/*
 * The names of @after are shown as they are: what is printable ASCII outside
 * of them is all that is promised, and no control character anywhere.
 */
static void
check_words(const Schedule *schedule, const char *text, size_t size)
{
	size_t		i;

	if (schedule->kind != SCHEDULE_AFTER)
	{
		check_clean(text, size);
		return;
	}
	for (i = 0; text[i] != '\0'; i++)
		PROMISE((unsigned char) text[i] >= 0x20 && text[i] != 0x7f);
}

/* As many parents as counted, none without a name, none twice. */
static void
check_parents(const Schedule *schedule, const char *text, size_t length)
{
	ScheduleParent parents[SCHEDULE_PARENTS_MAX];
	size_t		position = 0;
	int			count = 0;
	int			i;

	PROMISE(schedule->parent_count >= 1 && schedule->parent_count <= SCHEDULE_PARENTS_MAX);
	while (count < SCHEDULE_PARENTS_MAX &&
		   clockwork_schedule_next_parent(text, length, &position, &parents[count]))
	{
		char		name[8192];

		PROMISE(parents[count].length > 0);
		PROMISE(parents[count].name >= text &&
				parents[count].name + parents[count].length < text + length);
		PROMISE(clockwork_schedule_parent_name(&parents[count], name, sizeof(name)) <= parents[count].length);
		for (i = 0; i < count; i++)
			PROMISE(parents[i].length != parents[count].length ||
					memcmp(parents[i].name, parents[count].name, parents[i].length) != 0);
		count++;
	}
	PROMISE(count == schedule->parent_count);
	PROMISE(position >= length || count == SCHEDULE_PARENTS_MAX ||
			!clockwork_schedule_next_parent(text, length, &position, &parents[0]));
}

static void
check_due_times(const Schedule *schedule, const ScheduleZone *zone, bool match, int64_t after)
{
	int			i;

	for (i = 0; i < 4; i++)
	{
		int64_t		next = clockwork_schedule_next(schedule, zone, match, 12345, after);

		PROMISE(next > after);
		if (next == SCHEDULE_NEVER)
			return;
		PROMISE(clockwork_schedule_matches(schedule, zone, match, 12345, next));
		PROMISE(clockwork_schedule_next(schedule, zone, match, 12345, next - 1) == next);
		PROMISE(clockwork_schedule_next(schedule, zone, match, 12345, after + (next - after) / 2) == next);
		after = next;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Schedule	schedule;
	Schedule	again;
	ScheduleReport report;
	ScheduleZone zone = {NULL, offset_at, next_change};
	char		text[16384];
	char		words[16384];
	char		why[300];
	const char *input;
	size_t		length;
	int64_t		after;

	if (size < HEADER_BYTES)
		return 0;
	zone.zone = (void *) &rules[data[0] % (sizeof(rules) / sizeof(rules[0]))];
	after = (((int64_t) data[2] << 24 | (int64_t) data[3] << 16 | (int64_t) data[4] << 8 | data[5]) * 2 - 1000000) * US;
	input = (const char *) data + HEADER_BYTES;
	length = size - HEADER_BYTES;

	if (!clockwork_schedule_parse(input, length, input, length, &schedule, &report))
	{
		PROMISE(report.detail[0] != '\0' && report.notice[0] == '\0');
		check_clean(report.detail, sizeof(report.detail));
		check_clean(report.hint, sizeof(report.hint));
		return 0;
	}
	PROMISE(report.detail[0] == '\0' && report.hint[0] == '\0');
	check_clean(report.notice, sizeof(report.notice));
	check_clean(report.notice_detail, sizeof(report.notice_detail));
	check_clean(report.notice_hint, sizeof(report.notice_hint));

	PROMISE(clockwork_schedule_format(&schedule, input, length, text, sizeof(text)) < sizeof(text));
	PROMISE(clockwork_schedule_parse(text, strlen(text), NULL, 0, &again, &report));
	PROMISE(memcmp(&schedule, &again, sizeof(schedule)) == 0);
	PROMISE(clockwork_schedule_describe(&schedule, input, length, words, sizeof(words)) < sizeof(words));
	check_words(&schedule, words, sizeof(words));
	if (schedule.kind == SCHEDULE_AFTER)
	{
		check_parents(&schedule, input, length);
		check_parents(&again, text, strlen(text));
	}

	if (clockwork_schedule_never_runs(&schedule, why, sizeof(why)))
	{
		check_clean(why, sizeof(why));
		PROMISE(clockwork_schedule_next(&schedule, &zone, false, 0, after) == SCHEDULE_NEVER);
	}
	check_due_times(&schedule, &zone, (data[1] & 1) != 0, after);
	return 0;
}

#ifdef REPLAY
int
main(int argc, char **argv)
{
	int			i;

	for (i = 1; i < argc; i++)
	{
		static uint8_t data[65536];
		FILE	   *file = fopen(argv[i], "rb");
		size_t		size;
		uint8_t    *exact;

		if (file == NULL)
		{
			perror(argv[i]);
			return 2;
		}
		size = fread(data, 1, sizeof(data), file);
		fclose(file);

		/* A copy of the exact size, so that a sanitizer sees a read beyond it. */
		exact = malloc(size > 0 ? size : 1);
		memcpy(exact, data, size);
		fprintf(stderr, "%s\n", argv[i]);
		LLVMFuzzerTestOneInput(exact, size);
		free(exact);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
#endif
