"""The audit: who did what, append-only, sealed into a chain that anybody can check."""
