"""What gemproxy costs, measured beside its alternatives: C{python -m bench --help}."""
