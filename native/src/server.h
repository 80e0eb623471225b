/*
 * The server as a whole: what only its postmaster knows.
 */
#ifndef CLOCKWORK_SERVER_H
#define CLOCKWORK_SERVER_H

/*
 * Is the server being stopped (smart, fast or immediate)?  Reads a file of one
 * page; never raises an error, false if it cannot tell.
 */
extern bool clockwork_server_is_stopping(void);

#endif							/* CLOCKWORK_SERVER_H */
