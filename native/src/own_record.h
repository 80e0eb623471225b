/*
 * A run's record, written by the run itself: effects and record in one
 * transaction.
 */
#ifndef CLOCKWORK_OWN_RECORD_H
#define CLOCKWORK_OWN_RECORD_H

#include "execute.h"
#include "shmem.h"

/*
 * Right before the final commit of a run: write its success into its record,
 * as part of the transaction that is about to be committed.  True if that was
 * possible; otherwise the launcher writes it afterwards.  Raises an error only
 * if the run is cancelled meanwhile.
 */
extern bool clockwork_own_record_write(RunSlot *slot, const ExecuteResult *result);

#endif							/* CLOCKWORK_OWN_RECORD_H */
