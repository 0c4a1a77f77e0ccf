"""Make untrusted files safe to open: nothing in them runs that is not known."""
