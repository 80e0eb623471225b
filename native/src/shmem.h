/*
 * Shared memory: a small control panel, where launcher, workers and sessions
 * meet.
 *
 * Tables are the authority; what is here may be lost in a crash and is then
 * rebuilt from them.  The header is checked before anything else is touched.
 * Every field says who writes it: [L] the launcher, [W] the worker that owns
 * the slot, [S] any session; what several may write is atomic or under the
 * lock.  Longer texts live in an area of dynamic shared memory that begins
 * inside the panel, so that ordinary runs need no segment of their own.
 */
#ifndef CLOCKWORK_SHMEM_H
#define CLOCKWORK_SHMEM_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/cmdtag.h"
#include "utils/dsa.h"

#define CLOCKWORK_SHMEM_MAGIC	0x436C6B57	/* "ClkW" */
#define CLOCKWORK_SHMEM_VERSION 4

/* Changed jobs that can be told apart between two passes; more is "all". */
#define CLOCKWORK_MAX_CHANGES 256

/* Runs asked for between two passes that can be told apart. */
#define CLOCKWORK_MAX_REQUESTS 256

/* Cancellations that can wait for the launcher. */
#define CLOCKWORK_MAX_CANCELS 32

/* Ends of runs that a waiting session can tell apart. */
#define CLOCKWORK_MAX_ENDS 64

/* A text of an outcome longer than this is cut, and says so. */
#define CLOCKWORK_MAX_TEXT (16 * 1024 * 1024)

/* All texts together never take more than this. */
#define CLOCKWORK_MAX_TEXT_AREA ((Size) 512 * 1024 * 1024)

/* The part of an error's text that is kept whatever happens, with its NUL. */
#define CLOCKWORK_NOTE_SIZE 1024

/*
 * The life of a slot.  Each change is made by one side only:
 *
 *	 FREE --[L] claim--> CLAIMED --[L] begin committed--> BEGUN
 *	 --[L] hand over--> LAUNCHED --[W] attach--> RUNNING --[W] report--> ENDED
 *	 --[L] recorded, process gone--> FREE
 *	 or --[L] recorded, the process stays--> IDLE --[L] claim--> CLAIMED ...
 *
 * A process can also be had before there is a run for it:
 *
 *	 FREE --[L] ask for it--> WARMING --[W] attach--> CONNECTING --[W] connected--> IDLE
 *	 or --[L] process gone--> FREE
 *
 * The launcher takes LAUNCHED back to BEGUN when no worker could be had or the
 * run is not to begin after all, and so does a worker that waits but cannot take
 * the run; that and the attach exclude each other by compare-and-swap.  A slot
 * has one process at most, which may leave in any state but RUNNING.
 */
typedef enum SlotState
{
	SLOT_FREE = 0,
	SLOT_CLAIMED,
	SLOT_BEGUN,
	SLOT_LAUNCHED,
	SLOT_RUNNING,
	SLOT_ENDED,
	SLOT_IDLE,
	SLOT_WARMING,
	SLOT_CONNECTING
} SlotState;

/*
 * A worker that is about to commit a run's one transaction without its record
 * asks the launcher to note first that a crash would leave the effects in
 * doubt.  The launcher answers, whether it could or not.
 */
typedef enum SlotDoubt
{
	DOUBT_NONE = 0,
	DOUBT_ASKED,				/* [W] */
	DOUBT_ANSWERED				/* [L] */
} SlotDoubt;

/* How a run ended, with its texts in the text area, in the worker's encoding. */
typedef struct SlotOutcome
{
	bool		succeeded;
	bool		is_recorded;	/* its success is in its record already: they were
								 * committed together */
	bool		by_shutdown;	/* the server was stopped */
	int			elevel;			/* ERROR, FATAL ...; 0 if succeeded */
	int			sqlerrcode;		/* 0 if succeeded */
	bool		is_cancel;		/* somebody asked for it to end */
	CommandTag	tag;			/* of the last statement; CMDTAG_UNKNOWN if none */
	uint64		rows;			/* of the last statement */
	bool		has_rows;		/* that statement counts rows */
	int			encoding;		/* of the texts */
	dsa_pointer message;		/* InvalidDsaPointer where there is none */
	dsa_pointer detail;
	dsa_pointer hint;
	dsa_pointer context;
	char		note[CLOCKWORK_NOTE_SIZE];	/* the beginning of the message, where there
											 * was no memory for all of it; else empty */
} SlotOutcome;

/*
 * Somebody cancelled the run: what the launcher's successor has to know of it.
 */
typedef struct SlotCancel
{
	bool		is_asked;
	NameData	by;				/* the role */
	int64		terminate_at;	/* monotonic; PG_INT64_MAX: never */
} SlotCancel;

typedef struct RunSlot
{
	pg_atomic_uint32 state;		/* SlotState, see above */
	uint32		generation;		/* [L] counts claims, so a latecomer can tell */

	/* What to run: [L], before BEGUN */
	int64		runid;
	int64		jobid;			/* 0 for a run without a job */
	TimestampTz due_time;
	int32		attempt;
	char		trigger[12];
	NameData	notify;			/* channel on which to tell its end; "": none */
	Oid			database;
	Oid			role;
	int			encoding;		/* of the command */
	dsa_pointer command;
	Size		command_length;
	dsa_pointer settings;		/* a JSON object in the same encoding; invalid: none */
	bool		fresh_session;	/* no other run before or after it in its process */
	TimestampTz not_before;		/* its command begins then at the earliest; DT_NOBEGIN: at once */

	SlotCancel	cancel;			/* [L] */

	/* What became of it: [W] */
	bool		stays;			/* set before ENDED: its process would take another run */
	int			pid;			/* set on attach; 0 before */
	TimestampTz start_time;		/* when the command began; 0 before */
	TimestampTz end_time;
	pg_atomic_uint32 doubt;		/* SlotDoubt */
	SlotOutcome outcome;		/* valid when ENDED */

	/* The process of the slot, for one run or several */
	int			worker_pid;		/* [W] set on its first attach; [L] 0 when it is gone */
	Latch	   *latch;			/* [W] likewise; never dangling, it lies in shared memory */
	bool		leaves;			/* [W] it takes no run any more */
	bool		dismissed;		/* [L][S] it is to leave as soon as it has no run */
	int64		wanted_until;	/* [L] monotonic; it waits that long for a run, if not longer */
} RunSlot;

/* What became of a cancellation. */
typedef enum CancelAnswer
{
	CANCEL_UNANSWERED = 0,		/* the launcher has not got to it */
	CANCEL_DONE,				/* the run will not start, or has been told to end */
	CANCEL_NO_RUN				/* it is not under way: ended, or never there */
} CancelAnswer;

/* [S] a run is to be cancelled; [L] answers. */
typedef struct CancelRequest
{
	uint64		ticket;
	int64		runid;
	NameData	by;
	int64		grace;			/* microseconds; < 0: without end */
	CancelAnswer answer;
} CancelRequest;

/* What sessions ask of the launcher: all under the panel's lock. */
typedef struct RequestBoard
{
	/* Runs whose queued records were committed: [S] adds, [L] takes */
	int64		requests_from;	/* too many: all from this runid on; 0: not so */
	int			nrequests;
	int64		requests[CLOCKWORK_MAX_REQUESTS];

	/* Set by the first session that asks for a run of that cron.job, before it
	 * does: records of asked-for runs above are of this life of the server */
	Oid			first_table;
	int64		first_request;

	/* Cancellations, in a ring: [S] posts at `posted`, [L] answers at `answered` */
	uint64		posted;
	uint64		answered;
	CancelRequest cancels[CLOCKWORK_MAX_CANCELS];
	ConditionVariable answer_given;

	/* Ends, in a ring: [L] adds at `nends` */
	uint64		nends;
	int64		ends[CLOCKWORK_MAX_ENDS];
	ConditionVariable run_ended;

	/* Stopping everything */
	int			holds;			/* [S] transactions that keep runs from starting */
	bool		pause_changed;	/* [S] cron.pause_state was changed; [L] takes */
	uint64		passes;			/* [L] passes begun while runs were held */
} RequestBoard;

typedef struct ControlPanel
{
	/* Header: never changes place or meaning in any version. */
	uint32		magic;
	uint32		version;
	Size		size;

	LWLock	   *lock;			/* protects `changes`, `board`, `launcher_latch`
								 * and `launcher_pid` */

	/* The launcher's own */
	Latch	   *launcher_latch; /* [L] under lock; NULL when there is none */
	int			launcher_pid;	/* [L] under lock; 0 when there is none */
	pg_atomic_uint32 connect_failures;	/* [L] in a row */
	TimestampTz cursor;			/* [L] due times up to here are taken care of */
	uint32		set_back;		/* [L] told apart by it: stretches of time between
								 * which the clock was set back */
	pg_atomic_uint32 settings_changes;	/* [S] ALTER ROLE SET and its like, see neighbours.c */
	Oid			home_database;	/* [L] where the records are */
	Oid			job_table;		/* [L] cron.job that the slots' runs belong to */
	bool		recovered;		/* [L] a launcher of this server has loaded the
								 * jobs and closed what was left open */

	/* Jobs changed by committed transactions: [S] adds, [L] takes, under lock */
	bool		all_changed;
	TimestampTz changed_at;		/* when the first of them was committed; 0: none */
	int			nchanges;
	int64		changes[CLOCKWORK_MAX_CHANGES];

	RequestBoard board;

	int			nslots;
	RunSlot    *slots;			/* nslots of them, right behind */
	void	   *text_area;		/* a dsa_area created in place, behind the slots */
} ControlPanel;

/* Install the hooks that reserve and set up the panel; call from _PG_init. */
extern void clockwork_shmem_install(void);

/*
 * The panel; errors out with advice if the library was not preloaded or the
 * panel was laid out by another version of it.
 */
extern ControlPanel *clockwork_shmem_panel(void);

/* A slot by number. */
extern RunSlot *clockwork_shmem_slot(int index);

static inline SlotState
slot_state(RunSlot *slot)
{
	SlotState	state = (SlotState) pg_atomic_read_u32(&slot->state);

	pg_read_barrier();			/* what the state vouches for is read after it */
	return state;
}

/* Publish what was written to the slot together with its new state. */
static inline void
slot_set_state(RunSlot *slot, SlotState state)
{
	pg_write_barrier();
	pg_atomic_write_u32(&slot->state, (uint32) state);
}

/* Change the state if it is what the caller expects; false if it was not. */
static inline bool
slot_swap_state(RunSlot *slot, SlotState from, SlotState to)
{
	uint32		expected = (uint32) from;

	return pg_atomic_compare_exchange_u32(&slot->state, &expected, (uint32) to);
}

/* Have the process of a slot leave as soon as it has no run. */
extern void clockwork_shmem_dismiss(RunSlot *slot);

/* Tell the launcher to look.  Cheap, never fails, safe without a launcher. */
extern void clockwork_shmem_wake_launcher(void);

/*
 * Tell the launcher to end, as pg_terminate_backend would; the postmaster
 * starts the next one a second later.  False if there is none.
 */
extern bool clockwork_shmem_end_launcher(void);

/*
 * Note that jobs changed and wake the launcher.  `count` < 0 means any number
 * of any jobs.  Never raises an error: called after commit.
 */
extern void clockwork_shmem_note_changes(const int64 *jobids, int count);

/*
 * Take the noted changes, and when the first of them was committed (0 if there
 * is none): returns how many were copied to `jobids` (room for
 * CLOCKWORK_MAX_CHANGES), or -1 for "all".
 */
extern int	clockwork_shmem_take_changes(int64 *jobids, TimestampTz *changed_at);

/* When the first of the noted changes was committed; 0 if there is none. */
extern TimestampTz clockwork_shmem_changed_at(void);

/*
 * Keep a text in the text area.  Returns InvalidDsaPointer if `text` is NULL
 * or there is no memory for it.  `length` excludes the NUL that is added.
 * Never raises an error, except while the process exits, where an error cannot
 * be caught: keep a note in the slot instead.  The caller holds no LWLock.
 */
extern dsa_pointer clockwork_shmem_keep_text(const char *text, Size length);

/* The kept text, NUL-terminated; NULL for InvalidDsaPointer. */
extern const char *clockwork_shmem_text(dsa_pointer text);

/* Free a kept text and forget it. */
extern void clockwork_shmem_free_text(dsa_pointer *text);

#endif							/* CLOCKWORK_SHMEM_H */
