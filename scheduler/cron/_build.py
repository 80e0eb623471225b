"""Build recipe of scheduler.cron._core: the C files the server runs, seen from Python.

Zones reach C as tables of offset changes that Python fills in beforehand, not
as callbacks: a look-up costs nanoseconds, and no Python runs inside C. When a
table turns out too short, C says so with SCHEDULE_UNKNOWN and the second
beyond its reach; Python makes a longer table and asks again. Tables are never
changed once made, so any number of threads may read one.

setup.py names `ffibuilder`; `python scheduler/cron/_build.py` builds in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
MODULE = "scheduler.cron._core"
CORE = Path("native/src/core")
SOURCES = ("parse", "field", "elapsed", "after", "match", "next", "format", "describe", "explain")
HEADERS = ("", "_calendar", "_parse", "_text")
RULES = ("after", "policy")

# What Python sees.
DECLARATIONS = """
#define SCHEDULE_NEVER ...
#define SCHEDULE_UNKNOWN ...
#define SCHEDULE_TEXT_MAX ...

typedef enum { SCHEDULE_CALENDAR, SCHEDULE_INTERVAL, SCHEDULE_AT, SCHEDULE_REBOOT, SCHEDULE_AFTER, ... }
    ScheduleKind;
typedef enum { SCHEDULE_SUCCEEDED, SCHEDULE_FAILED, SCHEDULE_FINISHED, ... } ScheduleCondition;
typedef enum { AFTER_AWAITED, AFTER_MISSING, AFTER_SUCCEEDED, AFTER_FAILED, AFTER_SKIPPED, ... } AfterOutcome;
typedef enum { AFTER_WAIT, AFTER_RUN, AFTER_SKIP, ... } AfterVerdict;

typedef struct Schedule { ScheduleKind kind; uint8_t parent_count; ...; } Schedule;

typedef struct ScheduleParent {
    const char *name;
    size_t length;
    ScheduleCondition condition;
    ...;
} ScheduleParent;

typedef struct AfterParent { ScheduleCondition condition; AfterOutcome outcome; ...; } AfterParent;

typedef struct ScheduleReport {
    char detail[320];
    char hint[320];
    char notice[160];
    char notice_detail[320];
    char notice_hint[320];
    int fields;
    ...;
} ScheduleReport;

typedef struct ZoneChange {
    int64_t at;
    int32_t offset;
} ZoneChange;

typedef struct ZoneTable {
    int64_t start;
    int64_t until;
    int32_t count;
    ZoneChange changes[];
} ZoneTable;

bool clockwork_schedule_parse(const char *text, size_t length, const char *hash_key,
                              size_t hash_key_length, Schedule *schedule, ScheduleReport *report);
size_t clockwork_schedule_format(const Schedule *schedule, const char *text, size_t length,
                                 char *buffer, size_t size);
size_t clockwork_schedule_describe(const Schedule *schedule, const char *text, size_t length,
                                   char *buffer, size_t size);
bool clockwork_schedule_next_parent(const char *text, size_t length, size_t *position,
                                    ScheduleParent *parent);
size_t clockwork_schedule_parent_name(const ScheduleParent *parent, char *buffer, size_t size);
const char *clockwork_schedule_condition_word(ScheduleCondition condition);
AfterVerdict clockwork_after_decide(const AfterParent *parents, int count, int *which);
bool clockwork_after_meets(ScheduleCondition condition, AfterOutcome outcome);
AfterOutcome clockwork_after_outcome(const char *status);
const char *clockwork_after_reason(AfterOutcome outcome);
bool clockwork_schedule_never_runs_after(const Schedule *schedule, bool match_dom_and_dow, int64_t now,
                                         char *why, size_t size);
int64_t zone_next(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
                  int64_t anchor, int64_t after);
int zone_upcoming(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
                  int64_t anchor, int64_t after, int count, int64_t *instants);
int zone_matches(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
                 int64_t anchor, int64_t instant);
int64_t zone_reach(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
                   int64_t anchor, int64_t after);
int64_t zone_explain(const Schedule *schedule, const char *text, size_t text_length,
                     const ZoneTable *table, const char *zone_name, bool match_dom_and_dow,
                     int64_t from, int count, char *buffer, size_t size, int64_t *reach);
bool schedule_equal(const Schedule *a, const Schedule *b);

#define POLICY_NEVER ...
#define POLICY_MISSED_AFTER_USEC ...
#define POLICY_PRIORITY_USEC ...
#define POLICY_CATCH_UP_MAX ...
#define POLICY_COUNT_MAX ...

typedef enum { POLICY_QUEUE, POLICY_SKIP, POLICY_REPLACE, POLICY_PARALLEL, ... } PolicyOverlap;
typedef enum { POLICY_MISSED_SKIP, POLICY_MISSED_ONCE, POLICY_MISSED_ALL, ... } PolicyMissed;
typedef enum { POLICY_TAKE, POLICY_DROP, POLICY_TAKE_OVER, ... } PolicyArrival;
typedef enum { POLICY_LEAVE, POLICY_CANCEL, POLICY_TERMINATE, ... } PolicyAction;
typedef enum { POLICY_SUCCEEDED, POLICY_FAILED, POLICY_CRASHED, POLICY_CANCELED, ... } PolicyOutcome;

typedef struct PolicyRules {
    PolicyOverlap on_overlap;
    int max_parallel;
    PolicyMissed on_missed;
    int64_t start_deadline;
    int64_t timeout;
    int max_attempts;
    int64_t retry_delay;
    const char *retry_on;
    int64_t jitter;
    int priority;
    int64_t starts_at;
    int64_t ends_at;
    int pause_after;
    ...;
} PolicyRules;

typedef struct PolicyLimits {
    int max_running;
    int max_running_per_role;
    int64_t grace;
    int64_t max_retry_delay;
    ...;
} PolicyLimits;

typedef struct PolicyLoad { int running; int unstarted; int catching_up; ...; } PolicyLoad;
typedef struct PolicyWatch { PolicyAction action; int64_t look_again; ...; } PolicyWatch;
typedef struct PolicyCatchUp {
    int dropped;
    bool is_more;
    int64_t first_dropped;
    int64_t last_dropped;
    int kept;
    int64_t due[...];
    ...;
} PolicyCatchUp;

void clockwork_policy_defaults(PolicyRules *rules);
int64_t clockwork_policy_look_after(const PolicyRules *rules, int64_t after);
bool clockwork_policy_in_bounds(const PolicyRules *rules, int64_t due);
int64_t clockwork_policy_offset(const PolicyRules *rules, int64_t jobid, int64_t due, int64_t next_due);
void policy_catch_up(const PolicyRules *rules, const int64_t *due, const int64_t *start, int count,
                     int64_t after, int64_t horizon, int64_t now, PolicyCatchUp *plan);
PolicyArrival clockwork_policy_arrive(const PolicyRules *rules, const PolicyLimits *limits,
                                      const PolicyLoad *load);
int clockwork_policy_width(const PolicyRules *rules, const PolicyLimits *limits);
int64_t clockwork_policy_deadline(const PolicyRules *rules, int64_t start);
bool clockwork_policy_may_start(const PolicyLimits *limits, int running, int running_of_role);
int64_t clockwork_policy_rank(const PolicyRules *rules, int64_t start);
PolicyWatch clockwork_policy_watch(int64_t timeout, int64_t grace, int64_t began, int64_t stopped,
                                   int64_t terminated, int64_t now);
int64_t clockwork_policy_retry(const PolicyRules *rules, const PolicyLimits *limits, int64_t jobid,
                               int64_t due, int64_t next_start, int attempt, PolicyOutcome outcome,
                               const char *sqlstate, int64_t now);
int clockwork_policy_streak(int streak, PolicyOutcome outcome);
bool clockwork_policy_must_pause(const PolicyRules *rules, int streak);
bool clockwork_policy_is_sqlstate(const char *text);
"""

# What stands between Python and the core.
BRIDGE = """
#include <string.h>

#include "after.h"
#include "policy.h"
#include "schedule.h"

/* An answer that depends on seconds the table does not reach. */
#define SCHEDULE_UNKNOWN INT64_MIN

/* From the second `at` on, this offset is in force. */
typedef struct ZoneChange
{
    int64_t     at;
    int32_t     offset;
} ZoneChange;

/*
 * The offsets of a zone in [start, until).  The first of the `count`
 * changes stands for what was in force at the start.
 */
typedef struct ZoneTable
{
    int64_t     start;
    int64_t     until;
    int32_t     count;
    ZoneChange  changes[];
} ZoneTable;

/* One question to a table, and whether it was out of its reach. */
typedef struct Question
{
    const ZoneTable *table;
    bool        unknown;
    int64_t     reach;
} Question;

/* The last change at or before `at`. */
static int32_t
find_change(Question *question, int64_t at)
{
    const ZoneTable *table = question->table;
    int32_t     low = 0;
    int32_t     high = table->count;

    if (at < table->start || at >= table->until)
    {
        if (!question->unknown)
            question->reach = at;
        question->unknown = true;
    }
    while (high - low > 1)
    {
        int32_t     middle = (low + high) / 2;

        if (table->changes[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int32_t
offset_at(void *zone, int64_t at)
{
    Question   *question = zone;

    return question->table->changes[find_change(question, at)].offset;
}

/*
 * Beyond the last change known the end of the table stands for the next
 * one: if that matters, the next question there is out of reach.
 */
static bool
next_change(void *zone, int64_t at, int64_t *change)
{
    Question   *question = zone;
    int32_t     next = find_change(question, at) + 1;

    if (question->unknown)
        return false;
    *change = next < question->table->count ? question->table->changes[next].at : question->table->until;
    return true;
}

static int64_t
ask(Question *question, const Schedule *schedule, bool match_dom_and_dow, int64_t anchor, int64_t after)
{
    ScheduleZone zone = {question, offset_at, next_change};
    int64_t     due;

    if (question->table == NULL)
        return clockwork_schedule_next(schedule, NULL, match_dom_and_dow, anchor, after);
    due = clockwork_schedule_next(schedule, &zone, match_dom_and_dow, anchor, after);
    return question->unknown ? SCHEDULE_UNKNOWN : due;
}

static int64_t
zone_next(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
          int64_t anchor, int64_t after)
{
    Question    question = {table, false, 0};

    return ask(&question, schedule, match_dom_and_dow, anchor, after);
}

/* The second that SCHEDULE_UNKNOWN was about. */
static int64_t
zone_reach(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
           int64_t anchor, int64_t after)
{
    Question    question = {table, false, 0};

    (void) ask(&question, schedule, match_dom_and_dow, anchor, after);
    return question.reach;
}

/* Fills `instants`, and stops after a NEVER or an UNKNOWN. */
static int
zone_upcoming(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
              int64_t anchor, int64_t after, int count, int64_t *instants)
{
    int         filled = 0;

    while (filled < count)
    {
        after = zone_next(schedule, table, match_dom_and_dow, anchor, after);
        instants[filled++] = after;
        if (after == SCHEDULE_NEVER || after == SCHEDULE_UNKNOWN)
            break;
    }
    return filled;
}

/* -1: out of reach. */
static int
zone_matches(const Schedule *schedule, const ZoneTable *table, bool match_dom_and_dow,
             int64_t anchor, int64_t instant)
{
    Question    question = {table, false, 0};
    ScheduleZone zone = {&question, offset_at, next_change};
    bool        matches = clockwork_schedule_matches(schedule, table == NULL ? NULL : &zone,
                                                     match_dom_and_dow, anchor, instant);

    return question.unknown ? -1 : matches;
}

/* The length of the explanation; -1: out of reach, and *reach is where. */
static int64_t
zone_explain(const Schedule *schedule, const char *text, size_t text_length,
             const ZoneTable *table, const char *zone_name, bool match_dom_and_dow,
             int64_t from, int count, char *buffer, size_t size, int64_t *reach)
{
    Question    question = {table, false, 0};
    ScheduleZone zone = {&question, offset_at, next_change};
    size_t      length = clockwork_schedule_explain(schedule, text, text_length,
                                                    table == NULL ? NULL : &zone, zone_name,
                                                    match_dom_and_dow, from, from, count, buffer, size);

    *reach = question.reach;
    return question.unknown ? -1 : (int64_t) length;
}

/* Due times as two arrays, in order: when they are due, and when they start. */
typedef struct Column
{
    const int64_t *due;
    const int64_t *start;
    int         count;
} Column;

static bool
next_of_column(void *arg, int64_t after, int64_t *due, int64_t *start)
{
    const Column *column = arg;
    int         low = 0;
    int         high = column->count;

    while (low < high)
    {
        int         middle = (low + high) / 2;

        if (column->due[middle] <= after)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == column->count)
        return false;
    *due = column->due[low];
    *start = column->start[low];
    return true;
}

static void
policy_catch_up(const PolicyRules *rules, const int64_t *due, const int64_t *start, int count,
                int64_t after, int64_t horizon, int64_t now, PolicyCatchUp *plan)
{
    Column      column = {due, start, count};
    PolicyWalk  walk = {next_of_column, &column};

    clockwork_policy_catch_up(rules, &walk, after, horizon, now, plan);
}

static bool
schedule_equal(const Schedule *a, const Schedule *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}
"""


def make_builder(root: Path = Path()) -> FFI:
    """The recipe; `root` is where the project lies, the current directory by default."""
    builder = FFI()
    builder.cdef(DECLARATIONS)
    builder.set_source(
        MODULE,
        BRIDGE,
        sources=[str(root / CORE / f"{name}.c") for name in (*(f"schedule_{part}" for part in SOURCES), *RULES)],
        include_dirs=[str(root / CORE)],
        depends=[str(root / CORE / f"{name}.h") for name in (*(f"schedule{part}" for part in HEADERS), *RULES)],
        py_limited_api=True,
    )
    return builder


def build_in_place() -> Path:
    """Compile beside this file. Done elsewhere: only the module itself is to be left here."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        built = Path(make_builder(ROOT).compile(tmpdir=scratch))
        return Path(shutil.copy2(built, ROOT / "scheduler" / "cron" / built.name))


ffibuilder = make_builder()

if __name__ == "__main__":
    build_in_place()
