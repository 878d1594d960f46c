"""The alarm policy: a layered file, checked, resolved for a subject, compared and published."""
