"""The suite is a pytest of its own."""

collect_ignore = ["suite"]
