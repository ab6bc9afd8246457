"""What the Spark engine, runner and functions share: sessions, Java, errors, text, tables."""
