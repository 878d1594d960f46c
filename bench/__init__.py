"""Speed, measured beside named peers."""
