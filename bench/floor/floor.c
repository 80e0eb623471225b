/*
 * The floor under a burst: what a fresh background worker costs at least.
 *
 * floor_burst(total, at_once) starts `total` workers, never more than
 * `at_once` at a time, and returns when the last of them is gone.  A worker
 * connects to the caller's database as the caller, runs SELECT 1, commits and
 * exits.  There is no record, no launcher and no schedule: no scheduler that
 * starts a worker for each run can be faster than this on the same machine.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(floor_burst);
PGDLLEXPORT void floor_worker_main(Datum arg);

void
floor_worker_main(Datum arg)
{
	Oid			identity[2];

	memcpy(identity, MyBgworkerEntry->bgw_extra, sizeof(identity));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(identity[0], identity[1], 0);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT || SPI_execute("SELECT 1", true, 0) != SPI_OK_SELECT ||
		SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not run SELECT 1");
	PopActiveSnapshot();
	CommitTransactionCommand();
}

Datum
floor_burst(PG_FUNCTION_ARGS)
{
	int			total = PG_GETARG_INT32(0);
	int			at_once = PG_GETARG_INT32(1);
	Oid			identity[2] = {MyDatabaseId, GetUserId()};
	BackgroundWorkerHandle **handles;
	BackgroundWorker worker;
	int			started = 0;
	int			ended = 0;

	if (total < 0 || at_once < 1 || at_once > 1000)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("out of range")));
	handles = palloc0(sizeof(*handles) * at_once);
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "floor");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "floor_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "floor worker");
	snprintf(worker.bgw_type, BGW_MAXLEN, "floor worker");
	memcpy(worker.bgw_extra, identity, sizeof(identity));

	while (ended < total)
	{
		ResetLatch(MyLatch);
		for (int i = 0; i < at_once; i++)
		{
			pid_t		pid;

			if (handles[i] && GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED)
			{
				pfree(handles[i]);
				handles[i] = NULL;
				ended++;
			}
			if (handles[i] == NULL && started < total)
			{
				if (!RegisterDynamicBackgroundWorker(&worker, &handles[i]))
				{
					handles[i] = NULL;
					if (started == ended)
						ereport(ERROR, (errmsg("no background worker slot is free")));
					break;
				}
				started++;
			}
		}
		if (ended == total)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_VOID();
}
