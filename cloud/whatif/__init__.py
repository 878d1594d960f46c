"""What another alarm policy would have rung: recorded data through the very detectors of detect."""
