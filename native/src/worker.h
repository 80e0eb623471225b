/*
 * The worker: a background worker that executes one run.
 */
#ifndef CLOCKWORK_WORKER_H
#define CLOCKWORK_WORKER_H

/*
 * The entry point, found by the server by its name.  `arg` is an int64: the
 * number of the slot in the upper half, the generation of its claim in the
 * lower.
 */
extern PGDLLEXPORT void clockwork_worker_main(Datum arg);

#endif							/* CLOCKWORK_WORKER_H */
