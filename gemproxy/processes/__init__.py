"""Several daemons side by side, each a process with a reactor of its own, and their parent."""
