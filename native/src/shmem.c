/*
 * Shared memory: reserving the control panel, and the few verbs on it.
 *
 * One LWLock, in a tranche named after us, protects the list of changed jobs,
 * the board of requests and where the launcher is; it is held for a copy of at
 * most 2 kB and never across anything that can wait.  Slots need no lock: their state is atomic
 * and says who may write the rest.
 */
#include "postgres.h"

#include <signal.h>

#include "compat.h"
#include "guc.h"
#include "shmem.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define PANEL_NAME "pg_clockwork"

/* The part of the text area that lies inside the panel. */
#define TEXT_AREA_SIZE (256 * 1024)

static ControlPanel *panel = NULL;
static dsa_area *texts = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static Size
slots_size(void)
{
	return MAXALIGN(mul_size(sizeof(RunSlot), clockwork_guc_slots()));
}

static Size
text_area_size(void)
{
	return MAXALIGN(Max(TEXT_AREA_SIZE, dsa_minimum_size()));
}

static Size
panel_size(void)
{
	Size		size = MAXALIGN(sizeof(ControlPanel));

	size = add_size(size, slots_size());
	return add_size(size, text_area_size());
}

static void
request_panel(void)
{
	if (previous_request_hook)
		previous_request_hook();

	RequestAddinShmemSpace(panel_size());
	RequestNamedLWLockTranche(PANEL_NAME, 1);
}

static void
create_text_area(void)
{
	dsa_area   *area = dsa_create_in_place(panel->text_area, text_area_size(),
										   panel->lock->tranche, NULL);

	/*
	 * It lives as long as the server.  The postmaster lets go of its handle at
	 * once: it must never touch dynamic shared memory.
	 */
	dsa_pin(area);
	dsa_set_size_limit(area, CLOCKWORK_MAX_TEXT_AREA);
	dsa_detach(area);
}

static void
create_panel(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	texts = NULL;
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	panel = ShmemInitStruct(PANEL_NAME, panel_size(), &found);
	if (!found)
	{
		memset(panel, 0, sizeof(ControlPanel));
		panel->magic = CLOCKWORK_SHMEM_MAGIC;
		panel->version = CLOCKWORK_SHMEM_VERSION;
		panel->size = panel_size();
		panel->lock = &GetNamedLWLockTranche(PANEL_NAME)->lock;
		pg_atomic_init_u32(&panel->connect_failures, 0);
		pg_atomic_init_u32(&panel->settings_changes, 0);
		ConditionVariableInit(&panel->board.answer_given);
		ConditionVariableInit(&panel->board.run_ended);

		panel->nslots = clockwork_guc_slots();
		panel->slots = (RunSlot *) ((char *) panel + MAXALIGN(sizeof(ControlPanel)));
		memset(panel->slots, 0, slots_size());
		for (int i = 0; i < panel->nslots; i++)
		{
			pg_atomic_init_u32(&panel->slots[i].state, SLOT_FREE);
			pg_atomic_init_u32(&panel->slots[i].doubt, DOUBT_NONE);
		}

		panel->text_area = (char *) panel->slots + slots_size();
		create_text_area();
	}
	LWLockRelease(AddinShmemInitLock);
}

void
clockwork_shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_panel;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = create_panel;
}

ControlPanel *
clockwork_shmem_panel(void)
{
	if (panel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_clockwork can only be loaded via shared_preload_libraries"),
				 errhint("Add pg_clockwork to the shared_preload_libraries configuration variable in postgresql.conf.")));

	if (panel->magic != CLOCKWORK_SHMEM_MAGIC ||
		panel->version != CLOCKWORK_SHMEM_VERSION ||
		panel->size != panel_size())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_clockwork's shared memory was laid out by another version of the library"),
				 errdetail("Found version %u of %zu bytes; this library has version %u of %zu bytes.",
						   panel->version, panel->size,
						   CLOCKWORK_SHMEM_VERSION, panel_size()),
				 errhint("Restart the server.")));

	return panel;
}

RunSlot *
clockwork_shmem_slot(int index)
{
	Assert(index >= 0 && index < panel->nslots);
	return &panel->slots[index];
}

void
clockwork_shmem_dismiss(RunSlot *slot)
{
	Latch	   *latch = slot->latch;

	slot->dismissed = true;
	pg_memory_barrier();
	if (latch)
		SetLatch(latch);
}

void
clockwork_shmem_wake_launcher(void)
{
	if (panel == NULL)
		return;
	LWLockAcquire(panel->lock, LW_SHARED);
	if (panel->launcher_latch)
		SetLatch(panel->launcher_latch);
	LWLockRelease(panel->lock);
}

bool
clockwork_shmem_end_launcher(void)
{
	bool		told;

	if (panel == NULL)
		return false;

	/* It takes its number away under the lock: no other process can have it by then. */
	LWLockAcquire(panel->lock, LW_SHARED);
	told = panel->launcher_pid != 0 && kill(panel->launcher_pid, SIGTERM) == 0;
	LWLockRelease(panel->lock);
	return told;
}

void
clockwork_shmem_note_changes(const int64 *jobids, int count)
{
	TimestampTz now;

	if (panel == NULL)
		return;
	now = GetCurrentTimestamp();
	LWLockAcquire(panel->lock, LW_EXCLUSIVE);
	if (panel->changed_at == 0)
		panel->changed_at = now;
	if (count < 0 || panel->nchanges + count > CLOCKWORK_MAX_CHANGES)
		panel->all_changed = true;
	else if (!panel->all_changed)
	{
		memcpy(&panel->changes[panel->nchanges], jobids, count * sizeof(int64));
		panel->nchanges += count;
	}
	if (panel->launcher_latch)
		SetLatch(panel->launcher_latch);
	LWLockRelease(panel->lock);
}

int
clockwork_shmem_take_changes(int64 *jobids, TimestampTz *changed_at)
{
	int			count;

	LWLockAcquire(panel->lock, LW_EXCLUSIVE);
	count = panel->all_changed ? -1 : panel->nchanges;
	if (count > 0)
		memcpy(jobids, panel->changes, count * sizeof(int64));
	*changed_at = panel->changed_at;
	panel->changed_at = 0;
	panel->nchanges = 0;
	panel->all_changed = false;
	LWLockRelease(panel->lock);
	return count;
}

TimestampTz
clockwork_shmem_changed_at(void)
{
	TimestampTz changed_at;

	LWLockAcquire(panel->lock, LW_SHARED);
	changed_at = panel->changed_at;
	LWLockRelease(panel->lock);
	return changed_at;
}

static void
release_text_area(int code, Datum arg)
{
	texts = NULL;
	dsa_release_in_place((void *) DatumGetPointer(arg));
}

static dsa_area *
text_area(void)
{
	if (texts == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		texts = dsa_attach_in_place(panel->text_area, NULL);
		dsa_pin_mapping(texts);
		on_shmem_exit(release_text_area, PointerGetDatum(panel->text_area));
		MemoryContextSwitchTo(caller);
	}
	return texts;
}

static dsa_pointer
keep(const char *text, Size length)
{
	dsa_pointer kept;
	char	   *copy;

	kept = dsa_allocate_extended(text_area(), length + 1,
								 DSA_ALLOC_HUGE | DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(kept))
		return InvalidDsaPointer;
	copy = dsa_get_address(text_area(), kept);
	memcpy(copy, text, length);
	copy[length] = '\0';
	return kept;
}

dsa_pointer
clockwork_shmem_keep_text(const char *text, Size length)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint32		holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;
	volatile dsa_pointer kept = InvalidDsaPointer;

	if (text == NULL || length >= CLOCKWORK_MAX_TEXT_AREA)
		return InvalidDsaPointer;

	/*
	 * "No memory" comes back as such, but a file system without room for the
	 * segment is an error, raised with the area locked and nothing changed.
	 */
	PG_TRY();
	{
		/* A segment is the area's, not the transaction's: also one that fails. */
		CurrentResourceOwner = NULL;
		kept = keep(text, length);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		LWLockReleaseAll();
		CurrentResourceOwner = owner;
		InterruptHoldoffCount = holdoff;
		QueryCancelHoldoffCount = cancel_holdoff;
		MemoryContextSwitchTo(caller);
		EmitErrorReport();
		FlushErrorState();
		kept = InvalidDsaPointer;
	}
	PG_END_TRY();
	return kept;
}

const char *
clockwork_shmem_text(dsa_pointer text)
{
	if (!DsaPointerIsValid(text))
		return NULL;
	return dsa_get_address(text_area(), text);
}

void
clockwork_shmem_free_text(dsa_pointer *text)
{
	if (DsaPointerIsValid(*text))
	{
		dsa_free(text_area(), *text);
		*text = InvalidDsaPointer;
	}
}
