"""What archive counts, for Prometheus on loopback."""

from prometheus_client import Counter, Gauge

READINGS = Counter("healthsync_archive_readings_total", "Readings taken from Kafka")
DUPLICATES = Counter("healthsync_archive_duplicates_total", "Records that had been taken before")
REFUSED = Counter("healthsync_archive_refused_total", "Records that are no samples record")
FILES = Counter("healthsync_archive_files_total", "Files put on S3")
ROWS = Counter("healthsync_archive_rows_total", "Rows in the files put")
BYTES = Counter("healthsync_archive_bytes_total", "Bytes of the files put")
TAKEN = Counter("healthsync_archive_name_taken_total", "Puts refused: the file was there already")
STORE_ERRORS = Counter("healthsync_archive_store_errors_total", "Failed rounds against S3 or KMS")
LAG = Gauge("healthsync_archive_lag_records", "Records in Kafka not yet taken")
