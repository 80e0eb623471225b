/*
 * Refusing schedules and time zones that are none, as SQL errors.
 */
#include "postgres.h"

#include "schedule_check.h"
#include "zone.h"

void
clockwork_schedule_check(const char *text, const char *key, const char *common_hint,
						 Schedule *schedule, ScheduleReport *report)
{
	memset(report, 0, sizeof(*report));
	if (clockwork_schedule_parse(text, strlen(text), key, key ? strlen(key) : 0,
								 schedule, report))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule: %s", text),
			 report->detail[0] ? errdetail("%s", report->detail) : 0,
			 report->hint[0] ? errhint("%s", report->hint) :
			 common_hint ? errhint("%s", common_hint) : 0));
}

pg_tz *
clockwork_timezone_check(const char *name)
{
	pg_tz	   *zone = name && name[0] == '\0' ? NULL : clockwork_zone_find(name);

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name),
				 errhint("See the view pg_timezone_names.")));
	return zone;
}
