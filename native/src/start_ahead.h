/*
 * Getting ready for what is due in a moment.
 */
#ifndef CLOCKWORK_START_AHEAD_H
#define CLOCKWORK_START_AHEAD_H

#include "run_list.h"

/* Have workers connect for runs that are due soon.  Needs no transaction; may raise errors. */
extern void clockwork_start_ahead_warm(void);

/*
 * Make runs of what is due in a moment and has a worker waiting, and hand each,
 * with its slot, to `begin`.  Call it when nothing else wants those workers.
 */
extern void clockwork_start_ahead_begin(void (*begin) (Run *run, int slot_index));

/* Beginnings and ends were written, which took so many microseconds. */
extern void clockwork_start_ahead_note_write(int64 taken);

/* When (wall clock, after `now`) to look again; DT_NOEND: not before something is due. */
extern TimestampTz clockwork_start_ahead_next_look(TimestampTz now);

#endif							/* CLOCKWORK_START_AHEAD_H */
