"""The jobs that the command line starts, put together from the rooms below."""
