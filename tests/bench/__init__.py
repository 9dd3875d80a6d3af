"""`make bench`: figures of the shipped configuration beside limits measured in the same run, interleaved."""
