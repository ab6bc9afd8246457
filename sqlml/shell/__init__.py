"""The command ``sqlml``: a shell for people, a filter for scripts."""
