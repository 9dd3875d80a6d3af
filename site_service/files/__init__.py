"""HTTP access to the bytes of artifacts."""
