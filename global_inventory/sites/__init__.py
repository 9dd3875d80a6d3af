"""Sites as the global sees them: probes, rules, switches."""
