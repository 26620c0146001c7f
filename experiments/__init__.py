"""The studies, one a file: what is trained, what is claimed, where it comes from, the command and the result."""
