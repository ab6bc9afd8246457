"""The PostgreSQL wire: sqlml as a PostgreSQL server, for psql, BI tools and every language's driver."""
