"""Is it safe to delete mine? How many verified copies of given content the sites hold, as a signed statement."""
