/*
 * The SQL functions that act at once: cancel a run, wait for one, stop
 * everything.
 *
 * cron.cancel does not wait for its transaction's end, as pg_cancel_backend
 * does not: what is told to end is another process.  Whoever waits here holds
 * no lock of ours, and looks at the record as it is now, whatever the isolation
 * level.  cron.wait keeps the snapshot of the query it is called from;
 * cron.wait_for, a procedure, has none while it waits.
 */
#include "postgres.h"

#include "compat.h"
#include "acl.h"
#include "catalog.h"
#include "clock.h"
#include "extension.h"
#include "run_log.h"
#include "run_request.h"
#include "shmem.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(clockwork_cancel);
PG_FUNCTION_INFO_V1(clockwork_wait);
PG_FUNCTION_INFO_V1(clockwork_wait_for);
PG_FUNCTION_INFO_V1(clockwork_pause_all);
PG_FUNCTION_INFO_V1(clockwork_resume_all);
PG_FUNCTION_INFO_V1(clockwork_drain);
PG_FUNCTION_INFO_V1(clockwork_pause_changed);

/* Records are looked at this often even if nobody says that they changed. */
#define LOOK_USEC USECS_PER_SEC

/* After this, and then more and more rarely, a wait is checked for deadlock. */
#define DEADLOCK_USEC USECS_PER_SEC
#define DEADLOCK_RARELY_USEC (10 * USECS_PER_SEC)

/* A cancellation that finds a run committed, but not taken in yet, comes again. */
#define CANCEL_AGAIN_MS 20
#define CANCEL_TRIES 100

/* ---- arguments ---- */

/* Microseconds of an interval argument; -1 if it is null. */
static int64
interval_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	Interval   *interval;
	double		usec;

	if (PG_ARGISNULL(number))
		return -1;
	interval = PG_GETARG_INTERVAL_P(number);
	usec = (double) interval->time +
		((double) interval->month * DAYS_PER_MONTH + interval->day) * (double) USECS_PER_DAY;
	if (usec < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s can not be negative", name)));

	/* A hundred years are for ever, and can be added to any time. */
	return (int64) Min(usec, 36525.0 * (double) USECS_PER_DAY);
}

static int64
runid_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("runid can not be NULL")));
	return PG_GETARG_INT64(0);
}

/* ---- looking at a run ---- */

static void
refuse_run(int64 runid)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("run " INT64_FORMAT " does not exist or you don't own it", runid)));
}

static bool
find_run(int64 runid, RunLook *look)
{
	ExtensionObjects objects;
	ExtensionSection section;
	bool		found;

	clockwork_extension_require(&objects);
	clockwork_extension_enter(&section, objects.owner);
	found = clockwork_run_log_look(runid, look);
	clockwork_extension_leave(&section);
	return found;
}

/* The record of a run that the caller may control. */
static void
look_at_run(int64 runid, RunLook *look)
{
	if (!find_run(runid, look) || !clockwork_acl_is_owner(look->owner))
		refuse_run(runid);
}

/* The same for one that was there before. */
static void
look_again(int64 runid, RunLook *look)
{
	if (!find_run(runid, look))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the record of run " INT64_FORMAT " is gone", runid),
				 errdetail("It was deleted, or its job does not keep it (option \"history\"): how the run ended is not known.")));
	if (!clockwork_acl_is_owner(look->owner))
		refuse_run(runid);
}

/* ---- cancel ---- */

static void
cancel_own_request(int64 runid)
{
	ExtensionObjects objects;
	ExtensionSection section;

	clockwork_extension_require(&objects);
	clockwork_extension_enter(&section, objects.owner);
	clockwork_run_log_cancel(runid, clockwork_acl_current_user());
	clockwork_extension_leave(&section);
}

static bool
remark_end(int64 runid, const RunLook *look)
{
	ereport(NOTICE,
			(errmsg("run " INT64_FORMAT " has already ended", runid),
			 errdetail("Its status is %s.", look->status)));
	return false;
}

static void
pause_ms(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* cron.cancel(runid, grace) */
Datum
clockwork_cancel(PG_FUNCTION_ARGS)
{
	int64		runid = runid_argument(fcinfo);
	int64		grace = interval_argument(fcinfo, 1, "grace");
	RunLook		look;

	(void) clockwork_shmem_panel();
	PreventCommandDuringRecovery("cron.cancel()");
	for (int i = 0; i < CANCEL_TRIES; i++)
	{
		look_at_run(runid, &look);
		if (clockwork_run_log_is_final(look.status))
			PG_RETURN_BOOL(remark_end(runid, &look));
		if (look.is_ours)
		{
			cancel_own_request(runid);
			PG_RETURN_BOOL(true);
		}
		switch (clockwork_run_request_cancel(runid, clockwork_acl_current_user(), grace))
		{
			case CANCEL_DONE:
				PG_RETURN_BOOL(true);
			case CANCEL_UNANSWERED:
				ereport(WARNING,
						(errmsg("the launcher has not answered yet"),
						 errdetail("It will cancel run " INT64_FORMAT " as soon as it can.", runid)));
				PG_RETURN_BOOL(true);
			case CANCEL_NO_RUN:
				break;			/* it has just ended, or just been asked for */
		}
		pause_ms(CANCEL_AGAIN_MS);
	}
	ereport(WARNING,
			(errmsg("the launcher does not know run " INT64_FORMAT, runid),
			 errdetail("Its status is %s.", look.status)));
	PG_RETURN_BOOL(false);
}

/* ---- deadlocks ---- */

/* Does that process wait, directly or not, for a lock that this session holds? */
static bool
waits_for_us(int pid)
{
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2] = {Int32GetDatum(pid), Int32GetDatum(MyProcPid)};
	ExtensionObjects objects;
	ExtensionSection section;
	bool		result;

	clockwork_extension_require(&objects);
	clockwork_extension_enter(&section, objects.owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("WITH RECURSIVE blocker (pid) AS ("
							  " SELECT pg_catalog.unnest(pg_catalog.pg_blocking_pids($1))"
							  " UNION"
							  " SELECT pg_catalog.unnest(pg_catalog.pg_blocking_pids(pid)) FROM blocker)"
							  " SELECT FROM blocker WHERE pid OPERATOR(pg_catalog.=) $2",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for a deadlock");
	PopActiveSnapshot();
	result = SPI_processed > 0;
	clockwork_extension_leave(&section);
	return result;
}

static void
refuse_deadlock(int64 runid, int pid)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected"),
			 errdetail("Run " INT64_FORMAT " (process %d) waits for a lock that is held by this session, which waits for the run.",
					   runid, pid),
			 errhint("Commit or roll back before waiting.")));
}

/*
 * Error if what we wait for cannot come because of us: that run, or one of its
 * job that it stands behind, or (jobid -1) any run.
 */
static void
check_deadlock(int64 runid, int64 jobid)
{
	ControlPanel *panel = clockwork_shmem_panel();

	for (int i = 0; i < panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);
		uint32		generation = slot->generation;
		int64		other = slot->runid;
		int			pid = slot->pid;

		if (slot_state(slot) != SLOT_RUNNING || pid == 0 ||
			(jobid != -1 && other != runid && (jobid == 0 || slot->jobid != jobid)))
			continue;
		if (waits_for_us(pid) && slot_state(slot) == SLOT_RUNNING && slot->generation == generation)
			refuse_deadlock(other, pid);
	}
}

/* ---- wait ---- */

/* Nobody can wait for himself, nor for what he keeps from being committed. */
static void
check_not_in_vain(int64 runid, const RunLook *look)
{
	ControlPanel *panel = clockwork_shmem_panel();

	if (look->is_ours)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for run " INT64_FORMAT " before it is committed", runid),
				 errdetail("The run was asked for in this transaction, and starts when that has committed."),
				 errhint("Commit before waiting.")));
	for (int i = 0; i < panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);

		if (slot_state(slot) != SLOT_RUNNING || slot->pid != MyProcPid || slot->runid != runid)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("run " INT64_FORMAT " cannot wait for itself", runid)));
	}
}

/*
 * Wait until the run has ended: its status, in the memory context given, or
 * NULL after `timeout` microseconds (-1: never).  `between` is called before
 * each sleep.
 */
static char *
wait_for_run(int64 runid, int64 timeout, MemoryContext context, void (*between) (void))
{
	int64		start = clockwork_clock_read().monotonic;
	int64		deadline = timeout < 0 ? PG_INT64_MAX : start + timeout;
	int64		pause = DEADLOCK_USEC;
	int64		check_at = start + pause;
	void		(*look_at) (int64 runid, RunLook *look) = look_at_run;

	for (;;)
	{
		uint64		seen = clockwork_run_request_ends();
		int64		now;
		RunLook		look;

		look_at(runid, &look);
		look_at = look_again;
		if (clockwork_run_log_is_final(look.status))
			return MemoryContextStrdup(context, look.status);
		check_not_in_vain(runid, &look);
		now = clockwork_clock_read().monotonic;
		if (now >= deadline)
			return NULL;
		if (now >= check_at)
		{
			check_deadlock(runid, look.status && strcmp(look.status, "queued") == 0 ? look.jobid : 0);
			pause = Min(pause * 2, DEADLOCK_RARELY_USEC);
			check_at = now + pause;
		}
		if (between)
			between();
		clockwork_run_request_wait(runid, &seen, Min(Min(deadline, check_at), now + LOOK_USEC));
	}
}

/* cron.wait(runid, timeout) */
Datum
clockwork_wait(PG_FUNCTION_ARGS)
{
	char	   *status;

	(void) clockwork_shmem_panel();
	status = wait_for_run(runid_argument(fcinfo), interval_argument(fcinfo, 1, "timeout"),
						  CurrentMemoryContext, NULL);
	if (status == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/* CALL cron.wait_for(runid, timeout, status) */
Datum
clockwork_wait_for(PG_FUNCTION_ARGS)
{
	int64		runid = runid_argument(fcinfo);
	int64		timeout = interval_argument(fcinfo, 1, "timeout");
	MemoryContext context = CurrentMemoryContext;
	TupleDesc	desc;
	char	   *status;
	Datum		values[1];
	bool		nulls[1];

	(void) clockwork_shmem_panel();
	if (!fcinfo->context || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("cron.wait_for cannot be called inside a transaction block or a function"),
				 errdetail("It commits, so that it holds nothing while it waits."),
				 errhint("Use cron.wait there.")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	status = wait_for_run(runid, timeout, context, SPI_commit);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not finish SPI");
	MemoryContextSwitchTo(context);
	values[0] = status ? CStringGetTextDatum(status) : (Datum) 0;
	nulls[0] = status == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* ---- everything ---- */

static char *
reason_argument(FunctionCallInfo fcinfo, int number, const char *what)
{
	if (!PG_ARGISNULL(number))
		return text_to_cstring(PG_GETARG_TEXT_PP(number));
	return psprintf("%s by role \"%s\" at %s.", what, clockwork_acl_current_user(),
					timestamptz_to_str(GetCurrentTimestamp()));
}

static void
begin_write(ExtensionObjects *objects, const char *statement)
{
	(void) clockwork_shmem_panel();
	PreventCommandIfReadOnly(statement);
	clockwork_extension_require(objects);
}

/* False if everything was paused already. */
static bool
pause_everything(const ExtensionObjects *objects, const char *reason)
{
	PauseState	before;

	clockwork_catalog_read_pause(objects, &before);
	clockwork_catalog_pause(objects, reason, clockwork_acl_current_user());
	if (before.reason)
		ereport(NOTICE,
				(errmsg("all jobs were paused already"),
				 errdetail("%s", before.reason)));
	return before.reason == NULL;
}

/* cron.pause_all(reason) */
Datum
clockwork_pause_all(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;

	begin_write(&objects, "INSERT");
	PG_RETURN_BOOL(pause_everything(&objects, reason_argument(fcinfo, 0, "Paused")));
}

/* cron.resume_all() */
Datum
clockwork_resume_all(PG_FUNCTION_ARGS)
{
	ExtensionObjects objects;
	bool		was_paused;

	begin_write(&objects, "UPDATE");
	was_paused = clockwork_catalog_resume(&objects, clockwork_acl_current_user());
	if (!was_paused)
		ereport(NOTICE, (errmsg("all jobs are not paused")));
	PG_RETURN_BOOL(was_paused);
}

static int
count_runs(void)
{
	ControlPanel *panel = clockwork_shmem_panel();
	int			count = 0;

	for (int i = 0; i < panel->nslots; i++)
	{
		RunSlot    *slot = clockwork_shmem_slot(i);

		if (slot_state(slot) == SLOT_RUNNING && slot->pid == MyProcPid)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cron.drain cannot be called inside a run"),
					 errdetail("It would wait for its own end."),
					 errhint("Use cron.pause_all.")));
		count += slot_state(slot) != SLOT_FREE;
	}
	return count;
}

/*
 * cron.drain(timeout, reason)
 *
 * The pause holds for everybody when it is committed, but until then no run
 * may start either: the hold in shared memory sees to that, from now to the end
 * of the transaction.  When the launcher has begun a pass that knows of it, no
 * run can be about to start.
 */
Datum
clockwork_drain(PG_FUNCTION_ARGS)
{
	int64		timeout = interval_argument(fcinfo, 0, "timeout");
	int64		start = clockwork_clock_read().monotonic;
	int64		deadline = timeout < 0 ? PG_INT64_MAX : start + timeout;
	int64		pause = DEADLOCK_USEC;
	int64		check_at = start + pause;
	ExtensionObjects objects;
	uint64		passes;

	begin_write(&objects, "INSERT");
	(void) count_runs();
	(void) pause_everything(&objects, reason_argument(fcinfo, 1, "Drained"));
	clockwork_run_request_hold();
	passes = clockwork_run_request_passes();
	for (;;)
	{
		uint64		seen = clockwork_run_request_ends();
		int64		now;

		if (clockwork_run_request_passes() > passes && count_runs() == 0)
			PG_RETURN_BOOL(true);
		now = clockwork_clock_read().monotonic;
		if (now >= deadline)
			PG_RETURN_BOOL(false);
		if (now >= check_at)
		{
			check_deadlock(0, -1);
			pause = Min(pause * 2, DEADLOCK_RARELY_USEC);
			check_at = now + pause;
		}
		clockwork_run_request_wait(0, &seen, Min(Min(deadline, check_at), now + LOOK_USEC));
	}
}

/* For each statement on cron.pause_state. */
Datum
clockwork_pause_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("must be called as trigger")));
	clockwork_run_request_note_pause();
	return PointerGetDatum(NULL);
}
