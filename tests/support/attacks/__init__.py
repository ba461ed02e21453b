"""Programs of a hostile pod. Each runs by the standard library alone, and until it is killed."""
