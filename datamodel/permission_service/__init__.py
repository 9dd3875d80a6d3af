"""What a permission service says of one uri (`GET /perms?OP=read|write&ID=…`): asked when no local grant permits."""
