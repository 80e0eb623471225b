/*
 * The launcher: the process that decides what runs, and when.
 *
 * A due time, a committed change, a worker's end and a reload can all wake
 * it.  Each only sets the latch; every pass looks at the state rather than at
 * the reason, so wake-ups that are lost or merged cost nothing.  A pass is a
 * handful of verbs:
 *
 *	 reap		look at the slots: who never came, who has gone (run_list.c)
 *	 sync		read the jobs that changed (job_sync.c)
 *	 cancel		end runs that people want ended (run_control.c)
 *	 collect	turn due times into runs (run_policy.c)
 *	 settle		turn outcomes of runs into runs of others (run_after.c)
 *	 look		at runs whose time has come: deadlines, timeouts, retries
 *	 write		what ended and what begins: one transaction (bookkeeping.c)
 *	 launch		ask for workers, now that their beginning is on disk
 *	 warm		have workers ready for what is due in a moment (start_ahead.c)
 *	 catch up	records that the history would not take, move them there
 *
 * The launcher holds no lock, snapshot or transaction while it sleeps.  It
 * survives every error of one job, one row, one missing role or database;
 * FATAL errors (termination, its database dropped) end it, and the postmaster
 * starts the next one, which adopts the runs that go on.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "backlog.h"
#include "bookkeeping.h"
#include "clock.h"
#include "extension.h"
#include "guc.h"
#include "job_identity.h"
#include "job_list.h"
#include "job_sync.h"
#include "launcher.h"
#include "run_after.h"
#include "run_control.h"
#include "run_policy.h"
#include "run_request.h"
#include "server.h"
#include "session.h"
#include "start_ahead.h"
#include "trim.h"
#include "shmem.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* The longest sleep: a wall clock that was set is noticed within it. */
#define MAX_SLEEP_MS 30000

/* How often the launcher looks whether a wrong version has been put right. */
#define VERSION_CHECK_MS 1000

/* Due times older than this, when noticed, were missed and not merely late. */
#define MISSED_AFTER_USEC POLICY_MISSED_AFTER_USEC

/* At a shutdown, the ends of runs are awaited no longer than this. */
#define FAREWELL_MS 2000

static bool worker_shortage = false;	/* no background worker slot was free */
static int64 sync_at = 0;		/* monotonic; no sync before it, after an error */
static int64 settle_at = 0;		/* monotonic; no settling before it, after an error */
static int64 pause_until = 0;	/* monotonic; no pass before it, after an error */

/* ---- collect: due times become runs ---- */

/* Those up to `until`, which is not later than now. */
static void
collect(TimestampTz until)
{
	TimestampTz horizon = Max(launcher.now.wall - MISSED_AFTER_USEC, launcher.missed_until);
	Job		   *job;

	while ((job = clockwork_job_list_first_due(until)) != NULL)
	{
		/* Time in which everything is paused is not missed. */
		if (!cron_launch_active_jobs || launcher.is_paused)
			clockwork_job_list_resume(job, until);
		else if (clockwork_job_start_of(job, job->due_time) <= horizon)
			clockwork_run_policy_missed(job, horizon);
		else
			clockwork_run_policy_due(job);
	}
}

/*
 * What fell due before jobs changed fell due as they were then, also if we are
 * late: that has a record even if its job is gone.
 */
static void
collect_before_changes(void)
{
	TimestampTz changed_at = clockwork_shmem_changed_at();

	if (changed_at != 0 && clockwork_job_sync_is_loaded())
		collect(Min(changed_at, launcher.now.wall));
}

/* ---- settle: runs of other jobs become runs ---- */

static void
settle(void)
{
	clockwork_after_settle(clockwork_run_policy_admit);
}

/* ---- launch: workers for the runs whose beginning is on disk ---- */

static void
report_worker_shortage(void)
{
	if (worker_shortage)
		return;
	worker_shortage = true;
	ereport(LOG,
			(errmsg("no background worker is free for a due job; it waits for one"),
			 errhint("Consider increasing the configuration parameter \"%s\" (now %d), "
					 "or lowering \"%s\" (now %d).",
					 "max_worker_processes", max_worker_processes,
					 "cron.max_running_jobs", cron_max_running_jobs)));
}

/* False if the server has no worker to spare. */
static bool
launch_run(Run *run)
{
	RunSlot    *slot = clockwork_shmem_slot(run->slot);
	bool		has_worker = slot->worker_pid != 0;

	/* One that leaves has to be gone first: the cap is never exceeded. */
	if (has_worker && (slot->leaves || slot->dismissed))
		return true;

	/* One that waits takes it ahead, and starts it on the instant; another comes when it is time. */
	if (!has_worker && slot->not_before > launcher.now.wall)
		return true;
	run->launched_at = launcher.now.monotonic;
	if (slot->not_before > launcher.now.wall)
		run->launched_at += slot->not_before - launcher.now.wall;
	slot_set_state(slot, SLOT_LAUNCHED);
	clockwork_run_policy_launched(run);
	if (has_worker)
		SetLatch(slot->latch);
	else if (!clockwork_run_request_worker(run->slot, &run->handle))
	{
		(void) slot_swap_state(slot, SLOT_LAUNCHED, SLOT_BEGUN);
		return false;
	}
	run->must_log_start = cron_log_statement;
	if (!run->is_ahead)
		clockwork_run_log_start_of(run);
	return true;
}

static void
launch(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];

		if (run == NULL || slot_state(clockwork_shmem_slot(i)) != SLOT_BEGUN)
			continue;
		if (!launch_run(run))
		{
			report_worker_shortage();
			clockwork_run_dismiss_idle(launcher.panel->nslots);
			(void) clockwork_run_next_try(0);
			return;
		}
	}
	worker_shortage = false;
}

/* ---- the loop ---- */

static void
reload_settings(void)
{
	bool		old_match = cron_match_dom_and_dow;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	clockwork_session_set("log_min_messages", clockwork_guc_log_min_messages());
	clockwork_run_withdraw_all(NULL);
	ereport(LOG, (errmsg("pg_clockwork launcher reloaded configuration")));
	clockwork_run_unpark_all();
	if (old_match != cron_match_dom_and_dow)
		clockwork_job_list_recompute(launcher.now.wall);
}

static void
follow_clock(const ClockReading *before)
{
	int64		step = clockwork_clock_step(before, &launcher.now);

	if (step == 0)
		return;
	ereport(LOG,
			(errmsg("the clock was set %s by " INT64_FORMAT " seconds",
					step > 0 ? "forward" : "back",
					(step > 0 ? step : -step) / USECS_PER_SEC)));
	clockwork_run_withdraw_all(NULL);
	if (step < 0)
		launcher.panel->set_back++;
	clockwork_job_list_shift_intervals(step, launcher.panel->set_back);
	if (step > 0)
		launcher.settled_from = launcher.now.wall;
	if (step < 0)
	{
		/* What was jumped over can come after all; what has a record does not run again. */
		clockwork_job_list_turn_back(launcher.now.wall);
		launcher.missed_until = Min(launcher.missed_until, launcher.now.wall);
	}
}

/* Due times up to here are recorded, or in a slot that outlives us. */
static void
advance_cursor(void)
{
	TimestampTz cursor = launcher.now.wall;
	dlist_iter	iter;

	for (size_t i = 1; i <= launcher.ready.count; i++)
	{
		Run		   *run = run_of_rank(launcher.ready.entries[i]);

		if (run->runid == 0)
			cursor = Min(cursor, run->due_time - 1);
	}
	dlist_foreach(iter, &launcher.queued_runs)
		cursor = Min(cursor, dlist_container(Run, unrecorded, iter.cur)->due_time - 1);
	dlist_foreach(iter, &launcher.held_runs)
		if (dlist_container(Run, unrecorded, iter.cur)->runid == 0)
			cursor = Min(cursor, dlist_container(Run, unrecorded, iter.cur)->due_time - 1);
	dlist_foreach(iter, &launcher.skips)
		if (dlist_container(Skip, node, iter.cur)->runid == 0)
			cursor = Min(cursor, dlist_container(Skip, node, iter.cur)->due_time - 1);
	cursor = Min(cursor, clockwork_run_earliest_parked(cursor + 1) - 1);
	launcher.panel->cursor = cursor;
}

/* Do it, and survive its errors.  False if there was one. */
static bool
guarded(void (*verb) (void))
{
	volatile bool done = false;

	MemoryContextSwitchTo(launcher.pass_context);
	PG_TRY();
	{
		verb();
		done = true;
	}
	PG_CATCH();
	{
		(void) clockwork_session_recover(launcher.pass_context, false);
		clockwork_session_set("lock_timeout", SESSION_LOCK_TIMEOUT);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(launcher.pass_context);
	return done;
}

/*
 * Invalidations reach a process when it starts a transaction.  When nothing
 * else does, start one now and then: a job changed by COMMIT PREPARED or a
 * dropped extension is then noticed within MAX_SLEEP_MS.
 */
static void
take_part_in_invalidation(void)
{
	if (launcher.now.monotonic - clockwork_session_last_transaction() < MAX_SLEEP_MS * 1000L)
		return;
	clockwork_session_take_in_invalidations();
}

/* Milliseconds from now until `at`, rounded up, at least 0. */
static long
ms_until(int64 at, int64 from)
{
	return at <= from ? 0 : (long) ((at - from + 999) / 1000);
}

/* Does a run go on, or is there an end to be recorded? */
static bool
has_open_runs(void)
{
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];

		if (run && run->runid != 0 && !run->ended &&
			slot_state(clockwork_shmem_slot(i)) >= SLOT_RUNNING)
			return true;
	}
	return false;
}

/* As if the signal came only now.  Called by a timer. */
static void
die_at_last(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * The server is being stopped, and the workers were told so when we were:
 * record what waits, and how their runs end, which takes them no more than a
 * moment.  Nothing new begins.  What does not make it is recorded at the next
 * start.
 */
static void
say_farewell(void)
{
	enable_timeout_after(RegisterTimeout(USER_TIMEOUT, die_at_last), FAREWELL_MS);
	launcher.is_leaving = true;
	clockwork_run_withdraw_all(NULL);
	for (;;)
	{
		launcher.now = clockwork_clock_read();
		clockwork_run_reap();
		clockwork_bookkeeping_write();
		if (dlist_is_empty(&launcher.queued_runs))
		{
			if (!has_open_runs())
				return;
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 FAREWELL_MS, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * SIGINT.  A stray pg_cancel_backend is meant for a statement, not for us: it
 * would end a pass between a commit and what follows from it.  But lock_timeout
 * comes to us by the same signal.
 */
static void
take_cancel(SIGNAL_ARGS)
{
	int			saved_errno = errno;

	if (get_timeout_indicator(LOCK_TIMEOUT, false))
	{
		InterruptPending = true;
		QueryCancelPending = true;
	}
	SetLatch(MyLatch);
	errno = saved_errno;
}

static void
take_interrupts(void)
{
	QueryCancelPending = false;
	if (clockwork_session_is_told_to_end())
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	if (ProcDiePending && !launcher.is_leaving && launcher.job_table != InvalidOid &&
		clockwork_server_is_stopping())
	{
		ProcDiePending = false;
		say_farewell();
		ProcDiePending = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/*
 * Do the library and the installed SQL belong together?  Asked when something
 * may have changed, and again and again while they do not: updating an
 * extension need not tell anybody.
 */
static bool
versions_agree(void)
{
	static bool paused = false;
	char	   *wrong;

	if (!launcher.must_load && !paused)
		return true;
	clockwork_session_begin();
	wrong = clockwork_extension_find_wrong_version();
	if (wrong && !paused)
		ereport(LOG,
				(errmsg("pg_clockwork launcher pauses: the extension has version %s, the library has version %s",
						wrong, CLOCKWORK_VERSION),
				 errhint("%s", clockwork_extension_version_hint(wrong))));
	else if (wrong == NULL && paused)
		ereport(LOG, (errmsg("pg_clockwork launcher goes on: the extension has the library's version")));
	paused = wrong != NULL;
	clockwork_session_commit();
	if (paused)
	{
		launcher.must_load = true;
		pause_until = launcher.now.monotonic + VERSION_CHECK_MS * 1000L;
	}
	return !paused;
}

static void
pass(void)
{
	take_interrupts();
	if (ConfigReloadPending)
		reload_settings();
	if (!versions_agree())
		return;

	clockwork_run_request_begin_pass();
	take_part_in_invalidation();
	clockwork_run_reap();
	collect_before_changes();
	if (sync_at <= launcher.now.monotonic && !guarded(clockwork_job_sync))
	{
		/* Later, everything; until then the others go on with what is known. */
		launcher.must_load = true;
		sync_at = clockwork_run_next_try(0);
	}
	(void) guarded(clockwork_job_sync_close_orphans);
	(void) guarded(clockwork_job_sync_look_back);
	(void) guarded(clockwork_job_sync_rebuild);
	(void) guarded(clockwork_job_sync_requests);
	(void) guarded(clockwork_trim_records);
	launcher.may_begin = cron_launch_active_jobs && !launcher.is_paused && !launcher.pause_unread &&
		!launcher.server_stops && !clockwork_run_request_is_held();
	if (!launcher.may_begin)
		clockwork_run_withdraw_all(NULL);
	if (clockwork_job_sync_is_loaded())
	{
		(void) guarded(clockwork_job_identity_follow);
		clockwork_run_control_cancel();
		collect(launcher.now.wall);
		if (settle_at <= launcher.now.monotonic && !guarded(settle))
			settle_at = clockwork_run_next_try(0);
	}
	clockwork_run_policy_look();

	/* Nothing begins that would not be launched. */
	take_interrupts();
	clockwork_bookkeeping_write();
	clockwork_run_control_answer();
	launch();
	(void) guarded(clockwork_start_ahead_warm);
	(void) guarded(clockwork_backlog_catch_up);
	advance_cursor();
	clockwork_run_request_end_pass();
}

/* When to look whether a run is to be shown as running: milliseconds. */
static long
time_to_show(const Run *run, int64 from)
{
	long		left = ms_until(run->launched_at + SHOW_RUNNING_MS * 1000L, from);

	/* Not begun by then: its worker is held up, look again at the same pace. */
	return left > 0 ? left : SHOW_RUNNING_MS;
}

/* How long until there is something to do that no latch will tell us. */
static long
time_to_sleep(void)
{
	ClockReading current = clockwork_clock_read();
	TimestampTz next = Min(clockwork_job_list_next_due(), clockwork_start_ahead_next_look(current.wall));
	DueEntry   *alarm = clockwork_due_heap_first(&launcher.alarms);
	int64		latest = clockwork_session_last_transaction() + MAX_SLEEP_MS * 1000L;
	long		sleep = ms_until(latest, current.monotonic);

	if (pause_until > current.monotonic)
		return ms_until(pause_until, current.monotonic);
	/* Asked before retry_at is looked at: what keeps a pace is due then. */
	if (clockwork_bookkeeping_is_due() || launcher.pausing)
		return 0;
	if (next != DT_NOEND && next - current.wall < MAX_SLEEP_MS * 1000L)
		sleep = Min(sleep, ms_until(next, current.wall));
	if (alarm)
		sleep = Min(sleep, ms_until(alarm->key, current.monotonic));
	if (launcher.retry_at != 0)
		sleep = Min(sleep, ms_until(launcher.retry_at, current.monotonic));
	if (launcher.must_load)
		sleep = Min(sleep, ms_until(sync_at, current.monotonic));
	if (clockwork_after_is_due() && clockwork_job_sync_is_loaded())
		sleep = Min(sleep, ms_until(settle_at, current.monotonic));
	for (int i = 0; i < launcher.panel->nslots; i++)
	{
		Run		   *run = launcher.slot_runs[i];
		RunSlot    *slot = clockwork_shmem_slot(i);

		/* The signal of its exit may have come while we were busy. */
		if (clockwork_run_must_reap(i))
			return 0;
		if (run == NULL && slot_state(slot) == SLOT_FREE)
			continue;
		if ((run ? run->handle : launcher.idle_workers[i].handle) == NULL)
			sleep = Min(sleep, RETRY_MS);	/* nobody tells us of its end */
		if (run == NULL)
			continue;
		if (slot_state(slot) == SLOT_BEGUN && slot->not_before > current.wall)
			sleep = Min(sleep, ms_until(slot->not_before, current.wall));
		if (!run->shown_running && !run->ended && run->runid != 0 && slot_state(slot) >= SLOT_LAUNCHED)
			sleep = Min(sleep, time_to_show(run, current.monotonic));
	}
	return sleep;
}

/* Say once what the configuration cannot hold. */
static void
report_cap(void)
{
	/* One of the server's slots is the launcher's own. */
	if (launcher.panel->nslots > max_worker_processes - 1)
		ereport(LOG,
				(errmsg("cron.max_running_jobs is %d, but max_worker_processes (%d) leaves room for %d at most",
						launcher.panel->nslots, max_worker_processes, max_worker_processes - 1),
				 errdetail("Due jobs beyond that wait for a free background worker.")));
}

static void
detach_launcher(int code, Datum arg)
{
	bool		was_attached = false;

	LWLockAcquire(launcher.panel->lock, LW_EXCLUSIVE);
	if (launcher.panel->launcher_pid == MyProcPid)
	{
		was_attached = launcher.panel->launcher_latch != NULL;
		launcher.panel->launcher_latch = NULL;
		launcher.panel->launcher_pid = 0;
	}
	LWLockRelease(launcher.panel->lock);
	if (was_attached)
		ereport(LOG, (errmsg("pg_clockwork launcher shutting down")));
}

/* From before it is connected, whoever drops its database can end it. */
static void
announce_launcher(void)
{
	before_shmem_exit(detach_launcher, (Datum) 0);
	LWLockAcquire(launcher.panel->lock, LW_EXCLUSIVE);
	launcher.panel->launcher_pid = MyProcPid;
	LWLockRelease(launcher.panel->lock);
}

static void
attach_launcher(void)
{
	LWLockAcquire(launcher.panel->lock, LW_EXCLUSIVE);
	launcher.panel->launcher_latch = MyLatch;
	launcher.panel->home_database = MyDatabaseId;
	LWLockRelease(launcher.panel->lock);
}

/*
 * A database that cannot be connected to ends this process.  The postmaster
 * tries again every second; we make that rarer and rarer, up to a minute.
 */
static void
connect_to_home_database(void)
{
	uint32		failures = pg_atomic_read_u32(&launcher.panel->connect_failures);
	int64		start = clockwork_clock_read().monotonic;
	int64		pause = failures == 0 ? 0 : Min(1000L << Min(failures, 6), 60000L) * 1000;
	long		left;

	while ((left = ms_until(start + pause, clockwork_clock_read().monotonic)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		take_interrupts();
	}
	announce_launcher();
	pg_atomic_fetch_add_u32(&launcher.panel->connect_failures, 1);
	BackgroundWorkerInitializeConnection(cron_database_name, NULL, 0);
	pg_atomic_write_u32(&launcher.panel->connect_failures, 0);
}

static void
prepare(void)
{
	launcher.pass_context = AllocSetContextCreate(TopMemoryContext, "pg_clockwork pass",
												  ALLOCSET_DEFAULT_SIZES);
	launcher.now = clockwork_clock_read();
	clockwork_run_list_init();
	clockwork_job_sync_init();
	clockwork_job_identity_init();
	clockwork_extension_own_transactions();
}

void
clockwork_launcher_main(Datum arg)
{
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, take_cancel);
	BackgroundWorkerUnblockSignals();

	launcher.panel = clockwork_shmem_panel();
	connect_to_home_database();
	clockwork_session_harden();
	attach_launcher();
	clockwork_session_take_termination();
	prepare();
	wait_event = clockwork_wait_event_new("PgClockworkLauncher");
	ereport(LOG, (errmsg("pg_clockwork launcher started")));
	report_cap();

	for (;;)
	{
		ClockReading before = launcher.now;
		long		sleep = time_to_sleep();

		if (sleep > 0)
		{
			/* A timer that nobody needs any more would end the sleep. */
			disable_all_timeouts(false);
			pgstat_report_activity(STATE_IDLE, NULL);
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 sleep, wait_event);
		}
		ResetLatch(MyLatch);
		launcher.now = clockwork_clock_read();
		follow_clock(&before);
		if (launcher.retry_at != 0 && launcher.retry_at <= launcher.now.monotonic)
			launcher.retry_at = 0;
		if (launcher.now.monotonic < pause_until)
		{
			(void) guarded(take_interrupts);
			continue;
		}
		if (!guarded(pass))
		{
			launcher.must_load = true;
			pause_until = launcher.now.monotonic + RETRY_MS * 1000L;
		}
		MemoryContextReset(launcher.pass_context);
	}
}

void
clockwork_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pg_clockwork");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "clockwork_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_clockwork launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_clockwork launcher");
	RegisterBackgroundWorker(&worker);
}
