"""The reference's pages as tests: every example is run, every output is what it gives."""
