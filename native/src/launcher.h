/*
 * The launcher: the process that decides what runs, and when.
 */
#ifndef CLOCKWORK_LAUNCHER_H
#define CLOCKWORK_LAUNCHER_H

/* Register the launcher with the postmaster; call from _PG_init. */
extern void clockwork_launcher_register(void);

extern PGDLLEXPORT void clockwork_launcher_main(Datum arg);

#endif							/* CLOCKWORK_LAUNCHER_H */
