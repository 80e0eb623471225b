# make, make install, make clean, for any PG_CONFIG: all in native/.

all install uninstall clean installdirs:
	$(MAKE) -C native $@

.PHONY: all install uninstall clean installdirs
