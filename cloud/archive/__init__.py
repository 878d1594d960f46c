"""Archive: samples as encrypted Parquet on S3, each reading exactly once; and its reader.

Law: a partition's files are one chain. Each file starts at the offset where the one before ended,
its name is that offset, a name is written once, and the file carries all that the next one needs.
"""
