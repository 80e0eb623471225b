/*
 * Who may schedule what: the checks on roles and databases.
 */
#ifndef CLOCKWORK_ACL_H
#define CLOCKWORK_ACL_H

/* The name of the current user. */
extern char *clockwork_acl_current_user(void);

/* Error unless the role exists and can log in. */
extern void clockwork_acl_check_login(const char *username);

/* Warn if the role cannot log in: its runs will fail. */
extern void clockwork_acl_warn_no_login(const char *username);

/*
 * Error if the role is a superuser and cron.enable_superuser_jobs is off, if
 * the database does not exist, or if the role may not connect to it.
 */
extern void clockwork_acl_check_job(const char *username, const char *database);

/*
 * May the current user remove any job?  Superusers may, and whoever has the
 * right to delete from the table and is not held back by row security.
 */
extern bool clockwork_acl_may_delete_all(Oid job_table);

/*
 * Error unless the current user may run jobs outside the home database: the
 * right to execute cron.schedule_in_database is the switch for that.
 */
extern void clockwork_acl_check_other_database(void);

#endif							/* CLOCKWORK_ACL_H */
