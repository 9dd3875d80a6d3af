"""What a site does about snapshots: keeps what its globals name, and brings back what a snapshot names."""
