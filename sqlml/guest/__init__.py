"""Working on a database file that another process has open: through the server in that process."""
