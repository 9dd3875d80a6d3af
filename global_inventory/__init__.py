"""The global inventory: answers "who has it?". No bytes."""
