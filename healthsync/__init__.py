"""The one console command, and the process runtime that both sides share."""

__version__ = "0.1.0"
