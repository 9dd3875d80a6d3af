"""In-process remote ends that speak the real protocol."""
