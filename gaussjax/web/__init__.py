"""Pages: the viewer of a file and reports of runs, each one file that opens from disk without a server."""
