"""What the long trials have in common: a daemon on trial, those around it, and its clients."""
