/*
 * Dropping the home database, to which the launcher is connected.
 */
#ifndef CLOCKWORK_HOME_DROP_H
#define CLOCKWORK_HOME_DROP_H

/* Let DROP DATABASE send the launcher away; call from _PG_init. */
extern void clockwork_home_drop_install(void);

#endif							/* CLOCKWORK_HOME_DROP_H */
